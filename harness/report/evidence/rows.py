"""Which rows a record fills."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from harness.planning.selection import TEST_DEV, Selection
from harness.registry.load import Registry
from harness.store.records import Store


def rows_by_record(registry: Registry, store: Store, profiles: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """By evaluation, the rows that its record fills, whatever the data set and the seed."""
    found: dict[str, dict[str, None]] = {}
    for profile in profiles:
        selection = Selection("all", profile, [], None)
        refs = [ref for table in registry.tables.values() for ref in table.refs(profile)]
        for from_scratch in {False, selection.profile.without_weights == "from_scratch"}:
            for cell in selection.plan_of(refs, 1, from_scratch=from_scratch).cells:
                for split in (None, TEST_DEV):
                    for record in store.records_of(replace(cell.job, split=split)):
                        if record.profile == profile:
                            found.setdefault(record.eval_id, {})[cell.ref] = None
    return {eval_id: tuple(refs) for eval_id, refs in found.items()}
