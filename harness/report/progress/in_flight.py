"""What a table says while runs of it go on: how far each row is, its AP so far, and with which rows it shares them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from harness.planning.selection import Selection
from harness.report.tables import RowView, SoFar, TableView
from harness.status.in_flight import InFlight, ap_of_finished, in_flight

Curves = Sequence[Mapping[int, float]]  # AP by iteration, of each run of a row
NOT_A_RESULT: Final = "one evaluation on the way, no result: no verdict counts it"


def with_progress(view: TableView, selection: Selection) -> TableView:
    """The table with what its rows share, and with the runs that have no record yet, if there are any."""
    also = _shared(selection)
    view = replace(view, rows=tuple(replace(row, also=also.get(row.ref, ())) for row in view.rows))
    records = selection.row_records()
    begun = in_flight(selection, records)
    begun = {row.ref: begun[row.ref] for row in view.rows if row.ref in begun}
    if not begun:
        return view
    curves: dict[str, Curves] = {ref: [item.ap for item in items if item.ap] for ref, items in begun.items()}
    reached = [max(max(ap) for ap in found) for found in curves.values() if found]
    finished = ap_of_finished(selection, records, [row.ref for row in view.rows]) if reached else {}
    rows = [replace(row, in_flight=begun.get(row.ref, ())) for row in view.rows]
    if reached:
        then = min(reached)  # the newest evaluation that every row has which goes on and was evaluated at all
        rows = [
            replace(row, so_far=_so_far([*curves.get(row.ref, ()), *finished.get(row.ref, ())], then)) for row in rows
        ]
    wanted = max(len({*row.seeds, *(item.seed for item in row.in_flight)}) for row in rows)
    rows = [replace(row, wanted=wanted if row.status in ("measured", "pending") else 0) for row in rows]
    return replace(view, rows=tuple(rows), footnotes=(*view.footnotes, *_notes(rows)))


def _shared(selection: Selection) -> dict[str, tuple[str, ...]]:
    """By row, the other rows of the paper's tables that the same evaluations fill."""
    papers = {table.id for table in selection.registry.paper_tables}
    found: dict[str, tuple[str, ...]] = {}
    for jobs in selection.trainings.values():
        for ref, job in jobs.items():
            same = [other for other in jobs if other != ref and jobs[other].test == job.test]
            found[ref] = tuple(other for other in same if other.split("/")[0] in papers)
    return found


def _so_far(curves: Curves, iteration: int) -> SoFar | None:
    values = [ap[iteration] for ap in curves if iteration in ap]
    return SoFar(iteration, statistics.fmean(values), len(values)) if values else None


def _notes(rows: Sequence[RowView]) -> list[str]:
    notes = []
    if some := [row for row in rows if row.in_flight]:
        notes.append(
            f"Not finished: {'; '.join(f'{_name(row)} ({progress_text(row)})' for row in some)}. See: harness status"
        )
    if few := [row for row in rows if row.ours and row.state == "provisional"]:
        counts = "; ".join(f"{_name(row)} ({len(row.seeds)} of {row.wanted})" for row in few)
        notes.append(f"Provisional, seeds are missing: {counts}.")
    if known := [row for row in rows if row.so_far]:
        iteration = known[0].so_far.iteration if known[0].so_far else 0
        values = "; ".join(f"{_name(row)} {row.so_far.ap:.1f} (n {row.so_far.n})" for row in known if row.so_far)
        notes.append(f"AP so far, all after iteration {iteration:,} ({NOT_A_RESULT}): {values}.")
    if shared := [row for row in rows if row.also and (row.in_flight or not row.ours)]:
        notes.append(
            f"Shared with other rows, trained once: {'; '.join(f'{_name(row)} ({also_text(row)})' for row in shared)}."
        )
    return notes


def _name(row: RowView) -> str:
    return " ".join(row.label)


def also_text(row: RowView) -> str:
    """``also table1/hp-e_hn-3.5, table3/dr``."""
    return f"also {', '.join(row.also)}" if row.also else ""


def progress_text(row: RowView) -> str:
    """``running 43%, 12%; failed at 10%``: its begun runs by state, or ``pending``."""
    kinds: dict[str, list[InFlight]] = {}
    for item in row.in_flight:
        kinds.setdefault(item.kind, []).append(item)
    return "; ".join(_kind_text(kind, items) for kind, items in kinds.items()) or "pending"


def _kind_text(kind: str, items: Sequence[InFlight]) -> str:
    shares = [f"{item.progress:.0%}" for item in items if item.progress is not None]
    count = f" ({len(items)} runs)" if len(shares) < len(items) > 1 else ""
    at = "" if items[0].lives else "at "
    return f"{kind}{f' {at}' if shares else ''}{', '.join(shares)}{count}"


def status_text(row: RowView) -> str:
    """What stands in place of the numbers of a row without a finished run."""
    return progress_text(row) if row.status == "pending" and row.in_flight else row.status


def so_far_text(row: RowView) -> str:
    """``AP so far 21.3 after iteration 30,000``, of a row with runs that go on; else empty."""
    if row.so_far is None or not row.in_flight:
        return ""
    return f"AP so far {row.so_far.ap:.1f} after iteration {row.so_far.iteration:,}"
