"""The state of runs, from their records, heartbeats and locks, the launcher's files and the queue. Free of torch."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from detector.errors import RecordError, SchedulerError
from detector.runs.folder import RunDir, is_locked, read_own_record
from detector.runs.job import EvalJob
from detector.runs.record import Record
from detector.runs.status import Status
from harness.failures.log_tail import tail
from harness.planning.plan import Plan
from harness.slurm.states import SchedulerState
from harness.status.find import FoundRuns, KnownRun, of_plan
from harness.status.logs import output
from harness.status.state import FAILED, RunState, Seen, decide, is_idle
from harness.store.records import Store

logger = logging.getLogger(__name__)


class Scheduler(Protocol):
    """The answer of a queue that was asked once, for all runs."""

    def states(self, run: RunDir) -> SchedulerState | None:
        """What the queue says of the run; None where the run was never submitted to it."""


class NoScheduler:
    """No queue: locks and heartbeats alone show the states."""

    def states(self, run: RunDir) -> SchedulerState | None:
        """None."""
        return None


def look_at_queue(runs: Path) -> Scheduler:
    """The queue as it is now. runs: the runs folder, which has the submissions.

    If the queue does not answer, heartbeats alone decide: no run is called lost because of that.
    """
    from harness.slurm.queue import SlurmQueue, has_submissions

    if not has_submissions(runs):
        return NoScheduler()
    try:
        return SlurmQueue(runs)
    except SchedulerError as error:
        logger.warning("%s The states come from the heartbeats alone.", error)
        return NoScheduler()


@dataclass(frozen=True)
class Observed:
    """A run of the target and its state."""

    known: KnownRun
    state: RunState


def observe(known: KnownRun, store: Store, profile: str, scheduler: Scheduler) -> RunState:
    """The state of one run now."""
    if known.run is None:
        return RunState("not started")
    if not known.exists:
        seen = Seen(started=False, **_committed(known, store, profile), scheduler=scheduler.states(known.run))
    else:
        seen = see(known.run, known.jobs, scheduler, one_is_enough=known.one_is_enough)
    return decide(seen, time.time())


def see(run: RunDir, jobs: Sequence[EvalJob], scheduler: Scheduler, *, one_is_enough: bool = False) -> Seen:
    """What a run's folder and the queue show. jobs: the evaluations that it needs; without any it is never recorded."""
    records, broken = _recorded(run, jobs)
    evaluations = f"{len(records)} of {len(jobs)} evaluations" if len(records) < len(jobs) else ""
    if records and (one_is_enough or len(records) == len(jobs)):
        return Seen(recorded=True, ap=records[0].metrics.get("AP"), evaluations=evaluations, health=_health(records))
    try:
        status = run.read_status()
    except RecordError as error:
        status = Status(phase="failed", time=run.status.stat().st_mtime, pid=0, message=str(error))
    locked, queue = is_locked(run), scheduler.states(run)
    if locked or (status is not None and status.phase in ("stopped", "done")):
        return Seen(status=status, locked=locked, scheduler=queue, evaluations=evaluations, broken=broken)
    failed = status is not None and status.phase == "failed"
    printed = None if failed else output(run, 0)
    other = None if failed else run.first_failure()
    return Seen(
        status=status,
        scheduler=queue,
        other_rank=other.message if other is not None else "",
        tail=tail(run.log) if failed else tail(printed) if printed is not None else "",
        launched=run.submitit.stat().st_mtime if run.submitit.is_dir() else None,
        broken=broken,
    )


def _recorded(run: RunDir, jobs: Sequence[EvalJob]) -> tuple[list[Record], str]:
    """Of the evaluations that have one, in the order of ``jobs``; and why the first of the others cannot be used."""
    found, broken = dict[EvalJob, Record](), dict[str, str]()
    for path in sorted(run.root.glob("evals/*/record.json")):
        try:
            record = read_own_record(path)
        except RecordError as error:
            broken[path.parent.name] = str(error)
            continue
        found[record.job] = record
    wanted = [job.id for job in jobs] if broken else []
    return [found[job] for job in jobs if job in found], next((broken[name] for name in wanted if name in broken), "")


def _health(records: Sequence[Record]) -> tuple[str, ...]:
    """What any of them says, once."""
    found = [f"{health.name}: {health.message}" for record in records for health in record.health or ()]
    return tuple(dict.fromkeys(found))


def _committed(known: KnownRun, store: Store, profile: str) -> dict[str, Any]:
    """For a run without a folder: what the results folder has of it, as fields of ``Seen``."""
    paths = [store.results / "records" / profile / f"{job.id}.json" for job in known.jobs]
    if not all(path.exists() for path in paths):
        return {}
    try:
        records = [read_own_record(path) for path in paths]
    except RecordError:  # 'harness table' names it and says what is wrong
        return {}
    return {"recorded": True, "ap": records[0].metrics.get("AP"), "health": _health(records)}


def observe_all(found: FoundRuns, store: Store, profile: str) -> list[Observed]:
    """The state of every run; the queue is asked once."""
    scheduler = look_at_queue(store.runs)
    return [Observed(known, observe(known, store, profile, scheduler)) for known in found.runs]


def failed_ids(planned: Plan, store: Store) -> set[str]:
    """Ids of a plan's trainings that failed or were lost and do not run now."""
    scheduler = look_at_queue(store.runs)
    known = [item for item in of_plan(planned, store.runs) if item.exists]
    return {
        item.run.root.name
        for item in known
        if item.run is not None and observe(item, store, planned.profile.name, scheduler).kind in FAILED
    }


def is_over(observed: Sequence[Observed]) -> bool:
    """Whether no run waits or runs any more."""
    return is_idle(item.state for item in observed)
