"""The page's tables while runs go on, and when none does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.planning.selection import Selection
from harness.report.page.scales import Scale
from harness.report.page.summary import summary
from harness.report.page.tables import in_flight, table_grid
from harness.report.tables import Mean, RowView, SoFar, TableView
from harness.report.views import table_views
from harness.status.in_flight import InFlight

RUNNING = InFlight(1, "running", 0.43, {})


@pytest.fixture
def selection(empty_folders: None) -> Selection:
    return Selection("table2", "tiny", [], None)


@pytest.fixture
def view(selection: Selection) -> TableView:
    (view,) = table_views(selection)
    return view


def with_rows(view: TableView, **changes: dict[str, Any]) -> TableView:
    """The table with other values in the rows of these names."""
    rows = [replace(row, **changes.get(row.ref.split("/")[1].replace(".", "_"), {})) for row in view.rows]
    return replace(view, rows=tuple(rows))


def finished(seeds: tuple[int, ...] = (0,)) -> dict[str, Any]:
    return {"status": "measured", "seeds": seeds, "ours": {"AP": Mean(23.4, None)}}


def cells(view: TableView, selection: Selection, name: str) -> dict[str, str]:
    grid = table_grid(Scale(selection), view)
    at = [row.ref for row in view.rows].index(f"table2/{name}")
    return dict(zip(grid.headings, [cell.text for cell in grid.lines[at].cells], strict=False))


def test_finished_table_has_no_column_for_what_goes_on(view: TableView, selection: Selection) -> None:
    assert in_flight(view) == ()
    assert table_grid(Scale(selection), view).headings[:3] == ("Loss", "n", "AP")
    assert table_grid(Scale(selection), view).lines[0].cells[2].text == "pending"


def test_rows_that_go_on_say_how_far_they_are_and_have_no_result(view: TableView, selection: Selection) -> None:
    row: dict[str, Any] = {"in_flight": (RUNNING,), "wanted": 3, "so_far": SoFar(200, 21.34, 2)}
    new = with_rows(view, L6=finished() | row, L8=row, L4={"so_far": SoFar(200, 20.0, 1)} | finished((0, 1, 2)))
    assert in_flight(new) == ("state", "AP so far, iteration 200")
    grid = table_grid(Scale(selection), new)
    assert len(grid.headings) == len(grid.lines[0].cells) == sum(width for _, width in grid.spans)
    one = cells(new, selection, "L6")
    assert one["state"] == "provisional, 1 of 3 seeds; running 43%"
    assert one["AP so far, iteration 200"] == "21.3 (n 2)"
    assert cells(new, selection, "L8")["state"] == "running 43%"
    assert cells(new, selection, "L4")["state"] == "final"
    assert cells(new, selection, "focal")["state"] == "pending"
    line = grid.lines[[row.ref for row in new.rows].index("table2/L8")]
    assert line.cells[4].text == "\N{EN DASH}"  # in the place of an AP


def test_nothing_evaluated_on_the_way_needs_no_column(view: TableView, selection: Selection) -> None:
    stopped = InFlight(0, "failed", 0.1, {})
    new = with_rows(view, L8={"in_flight": (stopped,), "wanted": 1})
    assert in_flight(new) == ("state",)
    assert cells(new, selection, "L8")["state"] == "failed at 10%"


def test_first_screen_counts_trainings_on_their_way_once(view: TableView, selection: Selection) -> None:
    scale = Scale(selection)
    also: dict[str, Any] = {"in_flight": (RUNNING,), "wanted": 1}
    shared = [replace(row, **also) for row in view.rows[:1]]
    twin = replace(shared[0], ref="table3/dr", also=(shared[0].ref,))
    first = replace(shared[0], also=(twin.ref,))
    assert isinstance(first, RowView)
    scale.__dict__["tables"] = [replace(view, rows=(first,)), replace(view, id="table3", rows=(twin,))]
    facts = {fact.name: fact.value for fact in summary(scale).facts}
    assert facts["Trainings on their way"] == "1"
