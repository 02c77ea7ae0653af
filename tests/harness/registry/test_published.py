"""The shipped experiment files against a second transcription of the paper, and the paper's own text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.registry.load import Registry

PAPER_TABLES = ("table1", "table2", "table3", "table4")
PROFILES = {"paper", "one-gpu", "small", "tiny", "smoke", "overfit"}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(Path(__file__).resolve().parents[3] / "experiments")


@pytest.fixture(scope="module")
def transcription(shared_paper: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((shared_paper / "tables.yaml").read_text(encoding="utf-8")))


@pytest.mark.parametrize("table", PAPER_TABLES)
def test_published_numbers_equal_the_second_transcription(
    table: str, registry: Registry, transcription: dict[str, Any]
) -> None:
    ours = [list(row.published or ()) for row in registry.tables[table].rows]
    assert ours == [row["metrics"] for row in transcription[table]["rows"]]


@pytest.mark.parametrize("table", PAPER_TABLES)
def test_published_numbers_stand_in_the_papers_text(table: str, registry: Registry, shared_paper: Path) -> None:
    text = re.sub(r"\s+", " ", (shared_paper / "dr_loss.txt").read_text(encoding="utf-8"))
    for row in registry.tables[table].rows:
        assert " ".join(f"{number:.1f}" for number in row.published or ()) in text, row.id


def test_published_rows_are_34_with_unique_ids(registry: Registry) -> None:
    sizes = {name: len(registry.tables[name].rows) for name in PAPER_TABLES}
    assert sizes == {"table1": 6, "table2": 8, "table3": 3, "table4": 17}
    refs = [f"{name}/{row.id}" for name in PAPER_TABLES for row in registry.tables[name].rows]
    assert len(set(refs)) == 34


def test_published_labels_equal_the_second_transcription(registry: Registry, transcription: dict[str, Any]) -> None:
    table1 = [row.cells for row in registry.tables["table1"].rows]
    assert table1 == [(str(row["h_pos"]), str(row["h_neg"])) for row in transcription["table1"]["rows"]]
    table4 = [(row.group, *row.cells) for row in registry.tables["table4"].rows]
    assert table4 == [(row["group"], row["method"], row["backbone"]) for row in transcription["table4"]["rows"]]


def test_published_settings_say_what_the_labels_say(registry: Registry) -> None:
    for row in registry.tables["table1"].rows:
        h_pos, h_neg = (row.set.get(f"loss.h_{side}", default) for side, default in (("pos", "e"), ("neg", 3.5)))
        shown = tuple(value if value == "e" else f"{value:g}" for value in (h_pos, h_neg))
        assert row.cells == shown, row.id
    for row in registry.tables["table2"].rows:
        surrogate = row.set.get("loss.surrogate", {"name": "logistic", "L": 6.0})
        if row.cells[0].startswith("L = "):
            assert row.cells[0] == f"L = {surrogate['L']:g}", row.id
        if surrogate["name"] == "quadratic":
            assert row.cells[0].endswith(f" = {surrogate['rho']:g}"), row.id


def test_published_rows_are_trained_exactly_where_the_paper_trained(
    registry: Registry, transcription: dict[str, Any]
) -> None:
    trained = [bool(row.recipe) for row in registry.tables["table4"].rows]
    assert trained == [bool(row.get("run")) for row in transcription["table4"]["rows"]]
    assert all(row.recipe for name in PAPER_TABLES[:3] for row in registry.tables[name].rows)


def test_claims_name_rows_that_are_trained(registry: Registry) -> None:
    trained = {ref for table in registry.tables.values() for ref in table.refs()}
    named = {ref for claim in registry.claims for ref in claim.refs()}
    assert named <= trained
    assert len({claim.id for claim in registry.claims}) == len(registry.claims)


def test_claims_say_of_every_profile_whether_it_decides_them(registry: Registry) -> None:
    for claim in registry.claims:
        assert set(claim.decidable_in) | set(claim.reasons) == PROFILES, claim.id
        assert "paper" in claim.decidable_in, claim.id


def test_claims_print_the_difference_of_the_published_rows(registry: Registry) -> None:
    numbers = {f"{t.id}/{row.id}": row.published for t in registry.tables.values() for row in t.rows}
    # Our own focal rows stand for cited ones of Table 4.
    numbers["ablations/focal-r101"] = numbers["table4/retinanet-resnet-101-fpn"]
    numbers["ablations/focal-x101"] = numbers["table4/retinanet-resnext-32x8d-101-fpn"]
    checked = 0
    for claim in registry.claims:
        if claim.published is None:
            continue
        differences = []
        for pair in claim.contrasts:
            a, b = numbers[pair.a], numbers[pair.b]
            assert a is not None, pair.a
            assert b is not None, pair.b
            differences.append(round(a[0] - b[0], 1))
        if claim.kind in ("greater", "between"):
            assert claim.published == min(differences), claim.id
        else:
            assert claim.published == max(abs(difference) for difference in differences), claim.id
        checked += 1
    assert checked == 13
