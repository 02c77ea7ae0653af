"""Runs for Slurm instead of this machine: what a request submits, or what it would submit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from detector.errors import SchedulerError
from harness.code.snapshot import snapshot_id
from harness.slurm.arrays import Planned, Site, Work, ask_site, plan_arrays
from harness.slurm.backend.slurm import Slurm
from harness.slurm.batch.script import Array
from harness.slurm.clusters import Cluster
from harness.slurm.queue import QueuedRun, reconcile
from harness.slurm.submit import Outcome


@dataclass(frozen=True)
class DryRun:
    """What would be submitted, with its scripts. skipped: by training id, where a run is queued or runs already.

    why_held_back: limits that keep runs back.
    """

    skipped: dict[str, str]
    arrays: tuple[Array, ...]
    why_held_back: tuple[str, ...] = ()


def dry_run(work: Work, clusters: Sequence[Cluster], say: Callable[[str], None]) -> DryRun:
    """The jobs that these runs would become. Writes nothing, and goes on where a Slurm does not answer."""
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


def submission_lines(outcome: Outcome, names: Mapping[str, str]) -> list[str]:
    """What became of a submission: jobs that were found again, runs that were there, new jobs, what is held back."""
    lines = [
        f"Found again: job {entry.job_id}, submitted by a command that ended before it knew the id."
        for entry in outcome.recovered
    ]
    lines += skipped_lines(outcome.skipped, names)
    lines += [f"  will also be evaluated by its job: {names[run]}" for run in outcome.wanted]
    for entry, array in outcome.submitted:
        where = f" to {entry.cluster}" if len({done.cluster for done, _ in outcome.submitted}) > 1 else ""
        what = f"job {entry.job_id} ({array.plan.name}){where}"
        lines.append(f"Submitted {what}: {count_of_runs(len(entry.runs))}, each on {array.shape}.")
        for index, run in enumerate(entry.runs):
            lines.append(f"  {entry.job_id}{f'_{index}' if len(entry.runs) > 1 else ''}: {names[run]}")
    lines += [f"Held back: {count_of_runs(len(outcome.held_back))}. {why}." for why in outcome.why_held_back]
    return lines


def skipped_lines(skipped: Mapping[str, str], names: Mapping[str, str]) -> list[str]:
    """The runs that are queued or run already, in the order of the plan."""
    return [f"already there: {name}: {skipped[run]}" for run, name in names.items() if run in skipped]


def count_of_runs(count: int) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count} run{'' if count == 1 else 's'}"
