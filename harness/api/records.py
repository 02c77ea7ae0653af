"""``harness.records``: every finished evaluation with its job, as a frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pandas as pd

from detector.runs.record import Record
from harness.folders import results_folder, runs_folder
from harness.planning.selection import Targets, target_names
from harness.registry.declarations import METRICS
from harness.registry.load import Registry
from harness.report.evidence.rows import rows_by_record
from harness.store.records import Store


def records(target: Targets | None = None, profile: str | None = None) -> pd.DataFrame:
    """The finished records of the results folder and of the runs on this machine: one line per record.

    Columns: ``eval_id``, ``train_id``, ``profile``, ``rows`` (those that it fills; none after ``--set``), ``seed``, the
    metrics (AP .., AR .. in percent, unrounded; positive_score and negative_score in 0..1), ``train_seconds``,
    ``eval_seconds``, ``finished`` (UTC), ``commit`` (of the code that ran), ``notes``. Then every field of the record
    under its path: job.train.optimizer.lr, job.test.nms_iou, environment.torch, test_split.images, code.modified, ...
    NaN where a record has no such field: timing.data_seconds, timing.device_busy, ... of trainings before these were
    noted. What errors cost at IoU 0.5 is in lost_ap.missed, ..., lost_parts.sizes.small.AP50,
    lost_parts.objects.2-4.lost.missed, ...; of classes as tuples in the order of lost_parts.classes.names.

    target: "all" (the four tables), a table, a row, or several; None for every record, also of no row. profile: the
    scale; None for all. ``attrs["set_aside"]``: files that are no usable records, and why. Raises UsageError for an
    unknown name.

    >>> import harness
    >>> frame = harness.records("table2/L6", profile="tiny")
    >>> frame[["seed", "AP", "job.train.optimizer.lr", "train_seconds"]].round(1)
       seed    AP  job.train.optimizer.lr  train_seconds
    0     0  23.4                     0.1           20.6
    1     1  24.8                     0.1           39.2
    2     2  24.1                     0.1           22.2
    """
    registry, store = Registry(), Store(runs_folder(), results_folder())
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
    chosen.sort(key=lambda record: (record.profile, place(record), record.job.train.seed))
    if not chosen:
        return pd.DataFrame(columns=["eval_id", "train_id", "profile", "rows", "seed", *METRICS])
    frame = pd.DataFrame([_record_line(record, rows.get(record.eval_id, ())) for record in chosen])
    frame["finished"] = pd.to_datetime(frame["finished"], utc=True)
    frame = frame.astype({name: "float64" for record in chosen for name in record.metrics})
    frame.attrs["set_aside"] = {str(item.path): item.why for item in store.set_aside}
    return frame


def _record_line(record: Record, rows: tuple[str, ...]) -> dict[str, Any]:
    named = (
        "format",
        "eval_id",
        "train_id",
        "profile",
        "metrics",
        "train_seconds",
        "eval_seconds",
        "finished",
        "notes",
    )
    rest = {name: value for name, value in msgspec.to_builtins(record).items() if name not in named}
    line: dict[str, Any] = {"eval_id": record.eval_id, "train_id": record.train_id, "profile": record.profile}
    line |= {"rows": rows, "seed": record.job.train.seed, **record.metrics}
    line |= {"train_seconds": record.train_seconds, "eval_seconds": record.eval_seconds, "finished": record.finished}
    return line | {"commit": record.code.commit, "notes": record.notes, **dict(_flat(rest))}


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        if isinstance(item, dict):
            yield from _flat(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", tuple(item) if isinstance(item, list) else item
