"""Runs for Slurm instead of this machine: what a request submits, or what it would submit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from detector.errors import SchedulerError
from detector.runs.assignment import Assignment
from harness.code.snapshot import snapshot_id
from harness.planning.selection import Selection
from harness.slurm.clusters import Cluster
from harness.slurm.queue import reconcile
from harness.slurm.batch.script import Array, make_arrays


@dataclass(frozen=True)
class DryRun:
    """What would be submitted, with its scripts. skipped: by training id, where a run is queued or runs already."""

    skipped: dict[str, str]
    arrays: tuple[Array, ...]


def dry_run(todo: list[Assignment], cluster: Cluster, selection: Selection, say: Callable[[str], None]) -> DryRun:
    """The jobs that these runs would become. Nothing is written; a queue that cannot be read is told of and ignored."""
    runs = selection.store.runs
    try:
        queued, _ = reconcile(runs, write=False)
    except SchedulerError as error:
        queued = {}
        say(f"The queue was not read: {error}")
    skipped = {item.train.id: str(queued[item.train.id]) for item in todo if item.train.id in queued}
    free = [item for item in todo if item.train.id not in skipped]
    arrays = make_arrays(free, cluster, selection.profile.execution, runs=runs, code=snapshot_id())
    return DryRun(skipped, tuple(arrays))
