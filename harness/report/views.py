"""A target's tables and verdicts, from the records that are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.planning.selection import TEST_DEV, Selection, records_elsewhere
from harness.planning.unequal import apart, choose
from harness.registry.ledger import table_notes
from harness.report.check import CheckView, build_check
from harness.report.evidence.notes import format_one_note, record_notes
from harness.report.progress.in_flight import with_progress
from harness.report.tables import TableView, build_table


def table_views(selection: Selection) -> list[TableView]:
    """The targets' tables, filled with what is finished; rows as targets give their table with those lines only."""
    registry, profile, targets = selection.registry, selection.profile, set(selection.targets)
    papers = registry.paper_tables if "all" in targets else []
    runs, server = selection.runs(), selection.runs(TEST_DEV)
    views = []
    for table in registry.tables.values():
        refs = {f"{table.id}/{row.id}" for row in table.rows}
        wanted = refs if table in papers or table.id in targets else refs & targets
        if wanted:
            seen = runs | server if table.split == "test-dev" else runs
            trained = [ref for ref in table.refs(profile.name) if ref in wanted]
            settings = table_notes(registry, profile, trained)
            notes = settings + record_notes(selection, trained)
            if table.split == "test-dev":
                notes += record_notes(selection, trained, TEST_DEV)
            notes = tuple(dict.fromkeys(notes))
            view = build_table(table, profile, seen, wanted, notes, registry.own_rows, departures=selection.departures)
            views.append(with_progress(replace(view, settings=settings), selection))
    if views and not any(row.ours for view in views for row in view.rows) and (where := records_elsewhere(selection)):
        views[0] = replace(views[0], footnotes=(where, *views[0].footnotes))
    return views


def judge(selection: Selection, looks: Sequence[int] = ()) -> CheckView:
    """Verdicts on the target's cells and claims. ``looks``: seeds per row at which to look, decided beforehand."""
    registry, found = selection.registry, selection.row_records()
    kept = {ref: choose(records).kept for ref, records in found.items()}
    different = apart(kept)
    where = records_elsewhere(selection)
    notes = [*([where] if where else []), *record_notes(selection, selection.refs)]
    if beside := [ref for ref in different if ref not in selection.refs]:
        notes.append(f"No claim is judged by {', '.join(beside)}, whose runs had other inputs than those of most rows.")
    shown = {record.eval_id: record for ref in selection.refs for record in kept.get(ref, ())}
    return build_check(
        selection.target,
        selection.refs,
        list(registry.tables.values()),
        registry.claims,
        selection.profile,
        runs=selection.runs(),
        server=selection.runs(TEST_DEV),
        own_rows=registry.own_rows,
        own_claims=registry.own_claims,
        not_compared=frozenset(different),
        notes=tuple(notes),
        unknown=format_one_note(shown.values()),
        looks=looks,
    )
