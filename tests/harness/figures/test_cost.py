"""Hours per run: of the records, in parts, and estimates that look like estimates."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.figures.cost import PARTS, figure, hours_text, row_costs
from harness.planning.selection import Selection
from tests.harness.figures.drawing import draw, names, texts
from tests.harness.figures.made import made_records, timing, write

SECONDS = {"train_seconds": 7200.0, "eval_seconds": 1800.0, "timing": timing(7200.0, 1800.0)}


def test_the_parts_of_a_bar_are_those_of_the_records(results: Path) -> None:
    write(results, made_records("tiny", {"table2/L6": {0: 23.0, 1: 23.5}}, **SECONDS))
    made = figure(Selection("table2/L6", "tiny", [], None))
    (axes,) = draw(made).axes
    assert axes.get_title() == "CPU-hours per run"
    assert [patch.get_width() for patch in axes.patches] == pytest.approx([1.5, 0.5, 0.5])
    assert [patch.get_x() for patch in axes.patches] == pytest.approx([0.0, 1.5, 2.0])
    assert len({patch.get_hatch() for patch in axes.patches}) == len(PARTS)
    assert "2 runs of 1 row, 5.0 CPU-hours in all" in made.caption
    assert ("table2/L6", "CPU", 2, "measured", "evaluation", 0.5) in made.numbers.rows


def test_what_was_not_noted_of_waiting_is_part_of_the_training(results: Path) -> None:
    write(results, made_records("tiny", {"table2/L6": {0: 23.0}}, train_seconds=7200.0, eval_seconds=0.0))
    made = figure(Selection("table2/L6", "tiny", [], None))
    (axes,) = draw(made).axes
    assert [patch.get_width() for patch in axes.patches] == pytest.approx([2.0])
    assert "Waiting for data is part of the training" in made.caption


def test_a_row_without_a_run_has_an_estimate_in_another_hatch(results: Path) -> None:
    write(results, made_records("tiny", {"table2/L6": {0: 23.0}}, **SECONDS))
    selection = Selection(["table2/L6", "table2/focal"], "tiny", [], None)
    costs, unknown = row_costs(selection)
    assert [(cost.label, cost.runs) for cost in costs] == [("L6", 1), ("focal", 0)]
    assert not unknown
    assert costs[1].total == pytest.approx(2.5)  # of a run like the one that was measured
    canvas = draw(figure(selection), "column")
    axes = canvas.axes[0]
    assert names(axes) == ["L6", "focal"]
    of_focal = [patch for patch in axes.patches if patch.get_y() > 0.5]
    assert {patch.get_hatch() for patch in of_focal}.isdisjoint({patch.get_hatch() for patch in axes.patches[:1]})
    assert any("estimate" in text for text in texts(canvas))
    assert "Crossed: no finished run" in figure(selection).caption


def test_rows_of_unknown_cost_are_named_and_alone_are_missing(results: Path) -> None:
    made = figure(Selection("table2", "tiny", [], None))
    assert made.missing == (
        "What a run takes is unknown: no run of its backbone was measured. No finished run of table2 at profile tiny. "
        "Next: harness run table2 --profile tiny"
    )


@pytest.mark.parametrize(
    ("hours", "text"), [(0.00891, "0.0089"), (0.01, "0.010"), (9.64, "9.6"), (9.96, "10"), (217.4, "217")]
)
def test_hours_are_said_without_powers_of_ten(hours: float, text: str) -> None:
    assert hours_text(hours) == text
