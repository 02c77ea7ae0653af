"""Curves of trainings as lines of plain values: from the runs' folders, else from their records."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from detector.errors import RecordError, UsageError
from detector.runs.folder import RunDir
from detector.runs.record import Record
from harness.planning.selection import Selection
from harness.status.find import KnownRun, RunFinder
from harness.store.curves import read_curve

logger = logging.getLogger(__name__)

Point = dict[str, float | None]


@dataclass(frozen=True)
class Curve:
    """The curve of one training. points: "all" that were logged, or those that its record kept: "thinned"."""

    rows: tuple[str, ...]
    seed: int
    train_id: str
    points: Literal["all", "thinned"]
    values: Sequence[Point]

    def lines(self) -> Iterator[dict[str, Any]]:
        """One line per row and iteration."""
        for row in self.rows:
            head = {"row": row, "seed": self.seed, "train_id": self.train_id, "points": self.points}
            yield from (head | {"iteration": int(point["iteration"] or 0)} | point for point in self.values)


def recorded_curve(record: Record) -> list[Point]:
    """The points that a record keeps of its training's curve; none in a record of format 1."""
    if record.curves is None:
        return []
    values = record.curves.values
    return [
        {"iteration": iteration} | {name: series[i] for name, series in values.items()}
        for i, iteration in enumerate(record.curves.iterations)
    ]


def curves_of(selection: Selection, seeds: int | None = None) -> list[Curve]:
    """The curves of the selection's trainings, by row and seed. seeds: so many per row must be there.

    A damaged file among others is left out, with a warning, unless the record has the curve. Raises UsageError where
    there is none, or one of those that ``seeds`` asks for is not there; RecordError where all files are damaged.
    """
    damaged: list[tuple[KnownRun, RecordError]] = []
    found = _logged(selection, damaged) if selection.store.source != "committed" else []
    known = {curve.train_id for curve in found}
    found += [curve for curve in _recorded(selection) if curve.train_id not in known]
    if seeds is not None:
        found = [curve for curve in found if curve.seed < seeds]
    there = {(ref, curve.seed) for curve in found for ref in curve.rows}
    there |= {(ref, run.seed) for run, _ in damaged for ref in run.refs}
    lacking = [(ref, seed) for ref in selection.refs for seed in range(seeds or 0) if (ref, seed) not in there]
    if lacking or not there:
        raise _absent(selection, *(lacking[0] if lacking else (selection.refs[0], 0)))
    if damaged and not found:
        raise damaged[0][1]
    for _, reason in damaged:
        logger.warning("left out: %s", reason)
    order = {ref: i for i, ref in enumerate(selection.refs)}
    return sorted(found, key=lambda curve: (order[curve.rows[0]], curve.seed, curve.train_id))


def _logged(selection: Selection, damaged: list[tuple[KnownRun, RecordError]]) -> list[Curve]:
    """From the runs' folders, also of runs that go on."""
    found = []
    for known in RunFinder(selection, seeds=0).find().runs:
        if known.run is None or not known.run.metrics.exists():
            continue
        try:
            points = logged_points(known.run)
        except RecordError as error:
            damaged.append((known, error))
            continue
        found.append(Curve(known.refs, known.seed, known.run.root.name, "all", points))
    return found


def logged_points(run: RunDir) -> list[Point]:
    """What ``read_curve`` gives."""
    return [dict(point) for point in read_curve(run)]


def _recorded(selection: Selection) -> list[Curve]:
    """From the finished records of the selection's rows."""
    rows: dict[str, dict[str, None]] = {}
    records: dict[str, Record] = {}
    every = selection.row_records()
    for ref in selection.refs:
        for record in every.get(ref, ()):
            if record.curves is not None:
                rows.setdefault(record.train_id, {})[ref] = None
                records.setdefault(record.train_id, record)
    return [
        Curve(tuple(rows[train_id]), record.job.train.seed, train_id, "thinned", recorded_curve(record))
        for train_id, record in records.items()
    ]


def _absent(selection: Selection, ref: str, seed: int) -> UsageError:
    profile, runs = selection.profile.name, selection.store.runs
    return UsageError(
        f"No curve of {ref}, seed {seed}, profile {profile}: it has no run in {runs}, and no record with curves "
        f"(records of format 1 have none). Train it: harness run {ref} --profile {profile} --seeds {seed + 1}"
    )
