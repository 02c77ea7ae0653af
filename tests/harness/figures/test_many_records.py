"""Figures of very many records: each is looked at a fixed number of times."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector.runs.record import Record
from harness.figures import cost, curves, errors, seeds
from harness.figures.rows import shown
from harness.planning.selection import Selection
from tests.harness.figures.drawing import draw
from tests.harness.figures.made import curves_of, lost, made_records

NUMBER = 1000


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """Of one row, a seed each. The full number is not needed to count."""
    values = {"table2/L6": {seed: 20.0 + seed / 1000 for seed in range(NUMBER)}}
    return made_records("tiny", values, curves=curves_of(0), lost_ap=lost(0))["table2/L6"]


@pytest.mark.parametrize("make", [seeds.figure, errors.figure, cost.figure, curves.figure])
def test_a_thousand_seeds_are_drawn_by_a_bounded_number_of_artists(
    make: object, records: list[Record], results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    selection = Selection("table2", "tiny", [], None)
    asked: list[int] = []

    def found(self: Selection, split: str | None = None) -> dict[str, list[Record]]:
        asked.append(1)
        return {"table2/L6": records}

    monkeypatch.setattr(Selection, "row_records", found)
    assert callable(make)
    made = make(selection)
    canvas = draw(made)
    assert len(asked) <= 4
    assert sum(len(axes.lines) + len(axes.patches) for axes in canvas.axes) <= 100


def test_more_rows_than_fit_are_counted() -> None:
    rows = [shown.ShownRow((f"t/{i}",), str(i), ()) for i in range(100)]
    kept, said = shown.leading(rows)
    assert len(kept) == shown.MOST_ROWS
    assert said == f" {100 - shown.MOST_ROWS} more rows were left out; name fewer to see them."


def test_a_name_that_two_tables_have_keeps_its_table() -> None:
    assert shown.labels(["table2/L6", "mine/L6", "table2/L8"]) == {
        "table2/L6": "table2/L6",
        "mine/L6": "mine/L6",
        "table2/L8": "L8",
    }
