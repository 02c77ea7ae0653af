"""Ours minus the paper's, where numbers are compared; elsewhere the words that say why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.figures.cells import cell_rows, figure
from harness.planning.selection import Selection
from harness.report.views import table_views
from tests.harness.figures.drawing import draw, names, points, texts, titled
from tests.harness.figures.made import made_records, write

VALUES = {
    "table2/focal": {0: 36.0, 1: 36.3, 2: 36.2},
    "table2/hinge": {0: 30.0, 1: 30.2, 2: 30.1},
    "table2/L6": {0: 37.3, 1: 37.5, 2: 37.4},
}


def test_each_metric_has_the_differences_of_the_table(results: Path) -> None:
    write(results, made_records("paper", VALUES))
    selection = Selection("table2", "paper", [], None)
    made = figure(selection)
    canvas = draw(made)
    axes = titled(canvas, "AP")
    assert names(axes) == ["focal", "hinge", "rho0.2", "rho0.5", "L4", "L6", "L8", "L10"]
    paper = {name: selection.registry.row(f"table2/{name}")[1].published or () for name in names(axes)}
    expected = {0: 36.1667 - paper["focal"][0], 1: 30.1 - paper["hinge"][0], 5: 37.4 - paper["L6"][0]}
    assert points(axes) == pytest.approx(expected, abs=1e-3)
    assert points(titled(canvas, "APL"))[5] == pytest.approx(37.4 + 13 - 50.5)
    (view,) = table_views(selection)
    verdicts = {row.ref: dict(row.verdicts) for row in view.rows}
    assert {row.ref: dict(row.verdicts) for row in cell_rows(selection)} == verdicts
    verdict = verdicts["table2/L6"]["AP"]
    assert verdict.difference is not None
    assert verdict.half_width is not None
    ends = (verdict.difference - verdict.half_width, verdict.difference + verdict.half_width)
    assert ends in [tuple(map(float, line.get_xdata())) for line in axes.lines]
    (numbers,) = [row for row in made.numbers.rows if row[:2] == ("table2/L6", "AP")]
    assert numbers[5:8] == (verdict.difference, *ends)


def test_the_band_is_delta_and_the_outcomes_have_marks_and_words(results: Path) -> None:
    write(results, made_records("paper", VALUES))
    canvas = draw(figure(Selection("table2", "paper", [], None)))
    for metric, delta in (("AP", 0.5), ("APS", 1.0)):
        (band,) = titled(canvas, metric).patches
        assert band.get_extents().width > 0
        low, high = band.get_path().get_extents(band.get_patch_transform()).intervalx
        assert (low, high) == pytest.approx((-delta, delta))
    assert "no run" in texts(canvas)
    legend = [text.get_text() for text in canvas.legends[0].get_texts()]
    assert "not reproduced" in legend
    assert [word for word in legend if word not in ("reproduced", "consistent", "inconclusive", "not reproduced")] == []
    caption = figure(Selection("table2", "paper", [], None)).caption
    assert "3 seeds per row" in caption
    assert "table2/L8" in caption


def test_one_seed_rests_on_an_assumed_deviation_and_says_so(results: Path) -> None:
    write(results, made_records("paper", {"table2/L6": {0: 37.0}}))
    made = figure(Selection("table2/L6", "paper", [], None))
    assert "dotted" in made.caption
    assert {line.get_linestyle() for line in titled(draw(made), "AP").lines} >= {":", "None"}


def test_another_scale_is_never_compared(results: Path) -> None:
    write(results, made_records("tiny", VALUES))
    made = figure(Selection("table2", "tiny", [], None))
    assert not made.numbers.rows
    assert "never compared" in made.missing
    assert "harness run table2 --profile paper" in made.missing


def test_nothing_measured_yet_says_what_would_fill_it(results: Path) -> None:
    made = figure(Selection("table3", "paper", [], None))
    assert made.missing.endswith(
        "This would fill it: harness run table3 --profile paper; its cost: harness plan table3 --profile paper"
    )


def test_minival_never_fills_a_cell_of_test_dev(results: Path) -> None:
    write(results, made_records("paper", {"table4/dr-r101": {0: 41.7}}))
    made = figure(Selection("table4", "paper", [], None))
    assert "table4/dr-r101: at the server" in made.missing


def test_overridden_runs_are_not_compared(results: Path) -> None:
    made = figure(Selection("table2", "paper", ["optimizer.lr=0.005"], None))
    assert made.missing.startswith("With --set optimizer.lr=0.005 the runs are not the paper's")
