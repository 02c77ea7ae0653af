"""Tables in terminals of several widths: every line fits, no word is broken, what is left out is named."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import replace

import pytest

from harness.registry.declarations import METRICS
from harness.registry.load import Registry
from harness.report.check import build_check
from harness.report.formats import render_check, render_tables
from harness.report.tables import TableView, build_table
from harness.report.typeset.options import Look
from harness.verdicts.runs import RowRuns

TABLES = ("table1", "table2", "table3", "table4", "ablations")


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry()


@pytest.fixture(scope="module")
def runs(registry: Registry) -> dict[str, RowRuns]:
    """Three seeds of every row but table2/L8, around the paper's numbers."""
    found = {}
    for table in registry.tables.values():
        for row in table.rows:
            ref = f"{table.id}/{row.id}"
            if row.recipe and ref != "table2/L8":
                shifts = deque((0.1, 0.2, 0.3))
                shifts.rotate(len(found))
                metrics = [
                    dict(zip(METRICS, (x + s for x in row.published or (36.0,) * 6), strict=True)) for s in shifts
                ]
                ids = tuple(f"{row.recipe} {row.set} {seed}" for seed in range(3))
                found[ref] = RowRuns(ref, row.recipe, (0, 1, 2), tuple(metrics), ids)
    return found


def view_of(registry: Registry, runs: dict[str, RowRuns], table: str, profile: str) -> TableView:
    return build_table(registry.tables[table], registry.profile(profile), runs)


@pytest.mark.parametrize("width", [80, 100, 120, 200])
@pytest.mark.parametrize("profile", ["paper", "tiny"])
def test_every_line_fits_and_words_are_whole(
    registry: Registry, runs: dict[str, RowRuns], profile: str, width: int
) -> None:
    for table in TABLES:
        view = view_of(registry, runs, table, profile)
        text = render_tables([view], "text", Look(terminal=width))
        assert [line for line in text.splitlines() if len(line) > width] == []
        words = set(re.findall(r"\S+", text))
        for row in view.rows:
            assert {word for label in row.label for word in label.split()} <= words, row.ref
            if "AP" in row.ours:
                assert f"{row.ours['AP'].mean:.1f}" in words


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("profile", ["paper", "tiny"])
def test_verdicts_fit_and_signs_are_explained(
    registry: Registry, runs: dict[str, RowRuns], profile: str, width: int
) -> None:
    tables = [registry.tables[name] for name in TABLES[:4]]
    refs = [ref for table in tables for ref in table.refs()]
    view = build_check("all", refs, tables, registry.claims, registry.profile(profile), runs=runs)
    text = render_check(view, "text", Look(terminal=width))
    assert [line for line in text.splitlines() if len(line) > width] == []
    if profile == "paper" and width == 80:
        assert "yes: reproduced; ok: consistent; ?: inconclusive; NO: not reproduced." in text


def test_a_narrow_terminal_names_what_it_leaves_out(registry: Registry, runs: dict[str, RowRuns]) -> None:
    view = view_of(registry, runs, "table2", "tiny")
    wide, narrow = (render_tables([view], "text", Look(terminal=width)) for width in (120, 40))
    assert "No room for" not in wide
    assert "No room for APS, APM, APL" in narrow.replace("\n  ", " ")
    assert all(len(line) <= 40 for line in narrow.splitlines())


def test_a_dash_is_explained_where_there_is_one(registry: Registry, runs: dict[str, RowRuns]) -> None:
    legend = "-: the test images have no object of that size."
    no_large = {ref: replace(row, runs=tuple({**run, "APL": None} for run in row.runs)) for ref, row in runs.items()}
    dashed, whole = (
        render_tables([view_of(registry, found, "table2", "tiny")], "text", Look(terminal=80)).replace("\n  ", " ")
        for found in (no_large, runs)
    )
    assert legend in dashed
    assert legend not in whole


def test_notes_are_short_in_a_terminal_and_whole_on_request(registry: Registry, runs: dict[str, RowRuns]) -> None:
    settings = ("Where the sources differ:", "a.b: 1. Paper: 2.")
    view = view_of(registry, runs, "table2", "tiny")
    view = replace(view, footnotes=(*view.footnotes, *settings, "long " * 100), settings=settings)
    short = render_tables([view], "text", Look(terminal=100))
    assert "The sources differ on 1 settings of these rows; --notes all lists them." in short
    assert "a.b" not in short
    assert short.count("long") < 60
    whole = render_tables([view], "text", Look(terminal=100, notes="all"))
    assert "a.b: 1. Paper: 2." in whole
    assert whole.count("long") == 100
    assert "\n- " not in render_tables([view], "text", Look(terminal=100, notes="none"))


def test_a_pipe_is_never_as_wide_as_a_terminal(
    registry: Registry, runs: dict[str, RowRuns], monkeypatch: pytest.MonkeyPatch
) -> None:
    view = view_of(registry, runs, "table4", "paper")
    before = render_tables([view], "text")
    monkeypatch.setenv("COLUMNS", "80")
    assert render_tables([view], "text", Look(terminal=None)) == before
