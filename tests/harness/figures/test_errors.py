"""AP lost by kind of error: of records that say it, with the range of seeds, and the difference of two rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.figures.errors import KINDS, figure
from harness.planning.selection import Selection
from tests.harness.figures.drawing import draw, names, points, titled
from tests.harness.figures.made import lost, made_records, write

AP = {0: 20.0, 1: 21.0}


def test_each_kind_has_the_means_and_the_range_of_seeds(results: Path) -> None:
    for ref in ("table2/focal", "table2/L6", "table2/L8"):
        for seed in AP:
            write(results, made_records("tiny", {ref: {seed: AP[seed]}}, lost_ap=lost(seed)))
    made = figure(Selection("table2", "tiny", [], None))
    canvas = draw(made)
    assert [axes.get_title() for axes in canvas.axes] == list(KINDS.values())
    axes = titled(canvas, "wrong class")
    assert names(axes) == ["focal", "L6", "L8"]
    assert points(axes) == {0: 1.5, 1: 1.5, 2: 1.5}
    assert [tuple(map(float, line.get_xdata())) for line in axes.lines if len(line.get_xdata()) == 2] == [
        (1.0, 2.0)
    ] * 3
    assert ("table2/L6", "classification", 1, 2.0) in made.numbers.rows
    assert "2 seeds per row" in made.caption


def test_two_rows_are_subtracted_seed_by_seed(results: Path) -> None:
    for seed in AP:
        write(results, made_records("tiny", {"table2/L6": {seed: AP[seed]}}, lost_ap=lost(seed, background=4.0)))
        write(results, made_records("tiny", {"table2/focal": {seed: AP[seed]}}, lost_ap=lost(seed, background=6.5)))
    made = figure(Selection(["table2/L6", "table2/focal"], "tiny", [], None))
    canvas = draw(made, "column")
    right = titled(canvas, "difference")
    at = list(KINDS).index("background")
    both = [line for line in right.lines if line.get_marker() == "o" and float(line.get_ydata()[0]) == at]
    assert [float(value) for value in both[0].get_xdata()] == pytest.approx([-2.5, -2.5])
    assert "L6 minus focal" in made.caption
    assert [text.get_text() for text in canvas.legends[0].get_texts()] == ["L6", "focal"]


def test_records_of_format_1_are_named_and_alone_are_missing(results: Path) -> None:
    write(results, made_records("tiny", {"table2/focal": AP}))
    alone = figure(Selection("table2", "tiny", [], None))
    assert "The 2 records of table2 at profile tiny are of format 1" in alone.missing
    write(results, made_records("tiny", {"table2/L6": AP}, lost_ap=lost(0)))
    made = figure(Selection("table2", "tiny", [], None))
    assert "Of records of format 1, which do not say it: focal." in made.caption
    assert names(titled(draw(made), "wrong class")) == ["L6"]


def test_a_kind_that_costs_nothing_or_less_is_drawn(results: Path) -> None:
    write(results, made_records("tiny", {"table2/L6": AP}, lost_ap=lost(0, background=-0.5)))
    axes = titled(draw(figure(Selection("table2", "tiny", [], None))), "background")
    assert axes.get_xlim()[0] < -0.5


def test_without_a_run_the_next_command_is_told(results: Path) -> None:
    assert figure(Selection("table2", "tiny", [], None)).missing.endswith("Next: harness run table2 --profile tiny")
