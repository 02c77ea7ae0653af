"""A target's tables and verdicts, from the records that are there."""

from __future__ import annotations

from harness.planning.selection import TEST_DEV, Selection
from harness.registry.ledger import table_notes
from harness.report.check import CheckView, build_check
from harness.report.tables import TableView, build_table


def table_views(selection: Selection) -> list[TableView]:
    """The target's tables, filled with what is finished; a row as target gives its table with that line only."""
    runs, server = selection.runs(), selection.runs(TEST_DEV)
    views = []
    for table in selection.registry.tables.values():
        wanted = {row for row in (f"{table.id}/{row.id}" for row in table.rows) if _belongs(row, selection.target)}
        if wanted:
            seen = runs | server if table.split == "test-dev" else runs
            trained = [ref for ref in table.refs(selection.profile.name) if ref in wanted]
            notes = table_notes(selection.registry, selection.profile, trained) + selection.left_out_notes(trained)
            views.append(build_table(table, selection.profile, seen, wanted, notes))
    return views


def _belongs(ref: str, target: str) -> bool:
    return not ref.startswith("ablations/") if target == "all" else ref == target or ref.startswith(f"{target}/")


def judge(selection: Selection) -> CheckView:
    """Verdicts on the target's cells and claims."""
    return build_check(
        selection.target,
        selection.refs,
        list(selection.registry.tables.values()),
        selection.registry.claims,
        selection.profile,
        runs=selection.runs(),
        server=selection.runs(TEST_DEV),
    )
