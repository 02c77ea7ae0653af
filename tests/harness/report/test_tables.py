"""Tables and checks filled with runs written by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from harness.registry.declarations import METRICS, Profile, Row, Table
from harness.registry.load import Registry
from harness.report.check import build_check
from harness.report.tables import TableView, build_table
from harness.verdicts.runs import RowRuns

PUBLISHED = (37.4, 56.0, 40.0, 20.8, 41.2, 50.5)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(Path(__file__).resolve().parents[3] / "experiments")


@pytest.fixture(scope="module")
def paper(registry: Registry) -> Profile:
    return registry.profile("paper")


@pytest.fixture(scope="module")
def tiny(registry: Registry) -> Profile:
    return registry.profile("tiny")


def small_table(split: Literal["minival", "test-dev"] = "minival") -> Table:
    rows = (
        Row(id="a", cells=("A",), recipe="dr-r50-1x", published=PUBLISHED),
        Row(id="b", cells=("B",), recipe="dr-r50-1x", published=PUBLISHED),
        Row(id="c", cells=("C",), cited="Others, reference [1]", published=PUBLISHED),
    )
    return Table(id="t", title="Title", split=split, columns=("X",), rows=rows)


def runs(ref: str, *shifts: float, split: str = "minival") -> dict[str, RowRuns]:
    """Runs at the published numbers plus a shift, one per seed."""
    metrics = tuple({m: v + shift for m, v in zip(METRICS, PUBLISHED, strict=True)} for shift in shifts)
    seeds = tuple(range(len(shifts)))
    return {ref: RowRuns(ref, "r50", seeds, metrics, tuple(f"{ref}-{seed}" for seed in seeds), split)}


def statuses(view: TableView) -> list[str]:
    return [row.status for row in view.rows]


def test_build_table_means_and_deviations_by_hand(paper: Profile) -> None:
    view = build_table(small_table(), paper, runs("t/a", 0.1, 0.3))
    assert statuses(view) == ["measured", "pending", "cited"]
    assert view.rows[0].ours["AP"].mean == pytest.approx(37.6)
    assert view.rows[0].ours["AP"].sd == pytest.approx(math.sqrt(0.02))
    assert view.rows[0].verdicts["AP"].difference == pytest.approx(0.2)
    assert view.rows[1].ours == {}
    assert view.rows[2].verdicts == {}


def test_build_table_has_no_deviation_with_one_seed(paper: Profile) -> None:
    view = build_table(small_table(), paper, runs("t/a", 0.1))
    assert view.rows[0].ours["AP"].sd is None
    assert view.rows[0].verdicts["AP"].provisional
    assert any("assumed" in note for note in view.footnotes)


def test_build_table_never_compares_outside_the_papers_scale(tiny: Profile) -> None:
    view = build_table(small_table(), tiny, runs("t/a", 0.0, 0.1))
    assert not view.compared
    assert all(not row.verdicts for row in view.rows)
    keys = {key for line in view.lines() for key in line}
    assert "AP" in keys
    assert not [key for key in keys if "verdict" in key or "difference" in key]
    assert any("another scale" in note for note in view.footnotes)


def test_build_table_never_fills_test_dev_with_minival(paper: Profile) -> None:
    view = build_table(small_table("test-dev"), paper, runs("t/a", 0.0))
    assert statuses(view) == ["awaiting server", "pending", "cited"]
    assert view.rows[0].ours == {}
    answered = build_table(small_table("test-dev"), paper, runs("t/a", 0.0, split="test-dev"))
    assert statuses(answered) == ["measured", "pending", "cited"]
    swapped = build_table(small_table("minival"), paper, runs("t/a", 0.0, split="test-dev"))
    assert statuses(swapped) == ["pending", "pending", "cited"]


def test_build_table_pools_the_deviation_over_other_tables_rows(paper: Profile) -> None:
    alone = build_table(small_table(), paper, runs("t/a", 0.0, 0.2))
    other = replace(runs("u/z", 1.0, 3.0)["u/z"], seeds=(2, 3))  # at the same seeds they would be no two samples
    shared = build_table(small_table(), paper, {**runs("t/a", 0.0, 0.2), "u/z": other})
    narrow, wide = (view.rows[0].verdicts["AP"].half_width for view in (alone, shared))
    assert narrow is not None
    assert wide is not None
    # Alone: sqrt(0.02 * 1.5) and t(0.975, 1) = 12.7; pooled: sqrt(1.01 * 1.5) and t(0.975, 2) = 4.30.
    assert narrow == pytest.approx(12.706 * math.sqrt(0.03 + 0.01 / 12), rel=1e-3)
    assert wide == pytest.approx(4.303 * math.sqrt(1.515 + 0.01 / 12), rel=1e-3)


def test_build_table_shows_only_the_rows_asked_for(paper: Profile) -> None:
    assert [row.ref for row in build_table(small_table(), paper, {}, {"t/b"}).rows] == ["t/b"]


def test_build_table_names_collapsed_rows(tiny: Profile) -> None:
    view = build_table(small_table(), tiny, runs("t/a", -30.0, -29.0) | runs("t/b", 0.0, 0.2))
    assert any(note.startswith("Collapsed") and note.endswith(": A.") for note in view.footnotes)


def test_table_has_one_unrounded_line_per_row(paper: Profile) -> None:
    lines = build_table(small_table(), paper, runs("t/a", 0.123456, 0.123457)).lines()
    assert [line["status"] for line in lines] == ["measured", "pending", "cited"]
    assert lines[0]["AP"] == pytest.approx(37.5234565, abs=1e-9)
    assert lines[0]["paper APL"] == 50.5
    assert lines[1]["AP"] is None


def test_build_check_lists_the_targets_cells_and_claims(registry: Registry, paper: Profile) -> None:
    tables = list(registry.tables.values())
    view = build_check(
        "table3",
        ["table3/all", "table3/neg-only", "table3/dr"],
        tables,
        registry.claims,
        paper,
        runs=runs("table3/dr", 0.0),
    )
    assert view.paper is not None
    assert view.own is None
    assert [row.ref for row in view.paper.cells] == ["table3/all", "table3/neg-only", "table3/dr"]
    assert {verdict.claim.id for verdict in view.paper.claims} >= {"all-pairs-collapse", "dr-beats-neg-only"}
    assert "smooth-beats-hinge" not in {verdict.claim.id for verdict in view.paper.claims}
    assert view.paper.family_size == len(registry.claims)  # the paper's scale decides all, whatever the target
    assert not view.failed


def test_build_check_fails_on_a_cell_that_is_not_reproduced(registry: Registry, paper: Profile) -> None:
    tables = list(registry.tables.values())
    far = build_check("x", ["table3/dr"], tables, registry.claims, paper, runs=runs("table3/dr", -9.0, -9.1, -8.9))
    assert far.failed


def test_build_check_does_not_fail_on_what_is_provisional(registry: Registry, paper: Profile) -> None:
    tables = list(registry.tables.values())
    rows = runs("table3/dr", -9.0) | runs("table3/all", -9.0)
    view = build_check("x", ["table3/dr", "table3/all"], tables, registry.claims, paper, runs=rows)
    assert view.paper is not None
    cell = next(row for row in view.paper.cells if row.ref == "table3/dr").verdicts["AP"]
    assert (cell.outcome, cell.provisional) == ("not reproduced", True)
    (claim,) = [verdict for verdict in view.paper.claims if verdict.claim.id == "all-pairs-collapse"]
    assert (claim.outcome, claim.provisional) == ("contradicted", True)
    assert not view.failed


def test_build_check_compares_no_cell_at_another_scale(registry: Registry, tiny: Profile) -> None:
    tables = list(registry.tables.values())
    view = build_check("x", ["table3/dr"], tables, registry.claims, tiny, runs=runs("table3/dr", -9.0, -9.1))
    assert view.paper is not None
    assert view.paper.cells == ()
    assert not view.failed
