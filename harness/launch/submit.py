"""Runs for Slurm instead of this machine: what a request submits, or what it would submit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from detector.errors import SchedulerError
from harness.code.snapshot import snapshot_id
from harness.slurm.arrays import Planned, Site, Work, ask_site, plan_arrays
from harness.slurm.backend.slurm import Slurm
from harness.slurm.batch.script import Array
from harness.slurm.clusters import Cluster
from harness.slurm.queue import QueuedRun, reconcile


@dataclass(frozen=True)
class DryRun:
    """What would be submitted, with its scripts. skipped: by training id, where a run is queued or runs already.

    why_held_back: limits that keep runs back.
    """

    skipped: dict[str, str]
    arrays: tuple[Array, ...]
    why_held_back: tuple[str, ...] = ()


def dry_run(work: Work, clusters: Sequence[Cluster], say: Callable[[str], None]) -> DryRun:
    """The jobs that these runs would become. Nothing is written; a Slurm that does not answer is told of and ignored."""
    busy = dict[str, QueuedRun]()
    sites = [Site(cluster, Slurm(cluster.slurm_conf or "")) for cluster in clusters]
    try:
        busy, _ = reconcile(work.runs, write=False)
        sites = [ask_site(cluster, work.runs) for cluster in clusters]
    except SchedulerError as error:
        say(f"The queue was not read: {error}")
    skipped = {item.train.id: str(busy[item.train.id]) for item in work.assignments if item.train.id in busy}
    free = [item for item in work.assignments if item.train.id not in skipped]
    planned = plan_arrays(free, work, sites, code=snapshot_id()) if free else Planned(())
    return DryRun(skipped, planned.arrays, planned.why_held_back)
