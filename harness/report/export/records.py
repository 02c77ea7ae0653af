"""Finished records as lines of plain values: one per record, every field under its path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import to_builtins

from detector.runs.record import Record
from harness.folders import results_folder, runs_folder
from harness.planning.selection import Targets, target_names
from harness.registry.load import Registry
from harness.report.evidence.rows import rows_by_record
from harness.store.records import SetAside, Source, Store

Line = dict[str, Any]
# What a line has first, under a shorter name than its path.
_NAMED = {"format", "eval_id", "train_id", "profile", "metrics", "train_seconds", "eval_seconds", "finished", "notes"}


@dataclass(frozen=True)
class ChosenRecords:
    """Records in the order of the rows and seeds; by evaluation, the rows that each fills; files that are none.

    wanted: the rows that were asked for, in their order; all where none was.
    """

    records: tuple[Record, ...]
    rows: Mapping[str, tuple[str, ...]]
    wanted: tuple[str, ...]
    set_aside: tuple[SetAside, ...]
    store: Store

    def lines(self) -> list[Line]:
        """One line per record."""
        return [record_line(record, self.rows.get(record.eval_id, ())) for record in self.records]


def choose_records(target: Targets | None, profile: str | None, source: Source | None = None) -> ChosenRecords:
    """The finished records of both folders, or of one.

    target: None for every record, also of no row. profile: None for all. Raises UsageError for an unknown name.
    """
    registry, store = Registry(), Store(runs_folder(), results_folder(), source)
    if profile is not None:
        registry.profile(profile)
    every = [ref for table in registry.tables.values() for ref in table.refs()]
    wanted = every if target is None else [ref for name in target_names(target) for ref in registry.select(name)]
    position = {ref: i for i, ref in enumerate(wanted)}
    rows = rows_by_record(registry, store, [profile] if profile is not None else list(registry.profiles))

    def place(record: Record) -> int:
        """Of the first wanted row that it fills; behind all of them where it fills none."""
        return min((position[ref] for ref in rows.get(record.eval_id, ()) if ref in position), default=len(position))

    chosen = [
        record
        for record in store.records
        if (profile is None or record.profile == profile) and (target is None or place(record) < len(position))
    ]
    chosen.sort(key=lambda record: (record.profile, place(record), record.job.train.seed, record.eval_id))
    return ChosenRecords(tuple(chosen), rows, tuple(wanted), store.set_aside, store)


def record_line(record: Record, rows: tuple[str, ...]) -> Line:
    """Ids, rows, seed, metrics, times and notes of a record; then every other field under its path."""
    rest = {name: value for name, value in to_builtins(record).items() if name not in _NAMED}
    line: Line = {"eval_id": record.eval_id, "train_id": record.train_id, "profile": record.profile}
    line |= {"rows": rows, "seed": record.job.train.seed, **record.metrics}
    line |= {"train_seconds": record.train_seconds, "eval_seconds": record.eval_seconds, "finished": record.finished}
    return line | {"commit": record.code.commit, "notes": record.notes, **dict(flat(rest))}


def flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value inside nested mappings, under its path; lists as tuples, so that a frame can group by them."""
    for name, item in value.items():
        if isinstance(item, dict):
            yield from flat(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", tuple(item) if isinstance(item, list) else item
