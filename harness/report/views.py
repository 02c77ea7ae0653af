"""A target's tables and verdicts, from the records that are there."""

from __future__ import annotations

from collections.abc import Sequence

from harness.planning.selection import TEST_DEV, Selection
from harness.registry.ledger import table_notes
from harness.report.check import CheckView, build_check
from harness.report.tables import TableView, build_table


def table_views(selection: Selection) -> list[TableView]:
    """The target's tables, filled with what is finished; a row as target gives its table with that line only."""
    registry, profile, target = selection.registry, selection.profile, selection.target
    runs, server = selection.runs(), selection.runs(TEST_DEV)
    views = []
    for table in registry.paper_tables if target == "all" else registry.tables.values():
        refs = {f"{table.id}/{row.id}" for row in table.rows}
        wanted = refs if target in ("all", table.id) else refs & {target}
        if wanted:
            seen = runs | server if table.split == "test-dev" else runs
            trained = [ref for ref in table.refs(profile.name) if ref in wanted]
            notes = table_notes(registry, profile, trained) + selection.left_out_notes(trained)
            views.append(build_table(table, profile, seen, wanted, notes, registry.own_rows))
    return views


def judge(selection: Selection, looks: Sequence[int] = ()) -> CheckView:
    """Verdicts on the target's cells and claims. ``looks``: seeds per row at which to look, decided beforehand."""
    registry = selection.registry
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
        looks=looks,
    )
