"""The state of runs, from their records, heartbeats and locks, the launcher's files and the queue. Free of torch."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import msgspec

from detector.errors import RecordError
from detector.runs.folder import RunDir, is_locked, read_own_record
from detector.runs.job import EvalJob
from detector.runs.record import Record
from detector.runs.status import Status
from harness.failures.cause import cause
from harness.failures.log_tail import tail
from harness.planning.plan import Plan
from harness.slurm.states import SchedulerState
from harness.status.find import FoundRuns, KnownRun, of_plan
from harness.status.kinds import FAILED, RunState, Seen, is_idle
from harness.status.logs import output
from harness.status.state import decide
from harness.status.submitted import newest_submissions
from harness.store.cancelled import cancellation
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


class Queue:
    """The queues of a runs folder for one who looks at them again and again: what is wrong with them is told once."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self._told = set[str]()

    def look(self) -> Scheduler:
        """The queues as they are now. One that does not answer makes no run lost: its runs are not known."""
        from harness.slurm.queue import SlurmQueue, has_submissions

        if not has_submissions(self.runs):
            return NoScheduler()
        return SlurmQueue(self.runs, damaged=self._tell)

    def _tell(self, text: str) -> None:
        if text not in self._told:
            logger.warning("%s", text)
        self._told.add(text)


def look_at_queue(runs: Path) -> Scheduler:
    """The queue as it is now. runs: the runs folder, which has the submissions."""
    return Queue(runs).look()


@dataclass(frozen=True)
class Observed:
    """A run of the target and its state."""

    known: KnownRun
    state: RunState


def observe(known: KnownRun, store: Store, profile: str, scheduler: Scheduler, *, leased: bool = False) -> RunState:
    """The state of one run now. leased: whether a launcher that lives here still has it to do."""
    if known.run is None:
        return RunState("not started")
    if not known.exists:
        queue = scheduler.states(known.run)
        committed = _committed(known, store, profile)
        gone = queue is not None and queue.phase == "gone"
        printed = output(known.run, 0) if gone else None
        seen = Seen(
            started=False,
            **committed,
            scheduler=queue,
            tail=tail(printed) if printed is not None else "",
        )
    else:
        seen = see(known.run, known.jobs, scheduler, one_is_enough=known.one_is_enough, evals=known.evals)
    if not seen.recorded:
        submitted = known.submitted.submission.time if known.submitted is not None else None
        seen = replace(seen, leased=leased, cancelled=_was_cancelled(known), submitted=submitted)
    return decide(seen, time.time())


def see(
    run: RunDir,
    jobs: Sequence[EvalJob],
    scheduler: Scheduler,
    *,
    one_is_enough: bool = False,
    evals: Sequence[str] = (),
) -> Seen:
    """What a run's folder and the queue show.

    jobs, evals: the evaluations that it needs, or their ids where they are not known; without any it is never recorded.
    """
    records, broken = _recorded(run, jobs, evals)
    needed = len(jobs) or len(evals)
    evaluations = f"{len(records)} of {needed} evaluations" if len(records) < needed else ""
    if records and (one_is_enough or len(records) == needed):
        return Seen(recorded=True, ap=records[0].metrics.get("AP"), evaluations=evaluations, health=_health(records))
    status, written = _heartbeat(run)
    locked, queue = is_locked(run), scheduler.states(run)
    launched = run.submitit.stat().st_mtime if run.submitit.is_dir() else None
    seen = Seen(
        status=status,
        written=written,
        locked=locked,
        scheduler=queue,
        evaluations=evaluations,
        launched=launched,
        broken=broken,
    )
    # A word of an earlier job may be the newest heartbeat of one that died before it had a word of its own.
    spoken = status is not None and (queue is None or queue.phase != "gone" or queue.job in ("", status.job))
    if locked or (spoken and status is not None and status.phase in ("stopped", "done")):
        return seen
    # A failure without a process is the batch script's word: the run's own is what it printed.
    failed = spoken and status is not None and status.phase == "failed" and status.pid != 0
    printed = None if failed else output(run, 0)
    why = cause(run, status if failed else None)
    if failed and status is not None and why is not None:
        seen = replace(seen, status=msgspec.structs.replace(status, message=why.message))
    return replace(
        seen,
        other_rank=why.message if why is not None and not failed else "",
        tail=tail(run.log) if failed else tail(printed) if printed is not None else "",
    )


def _heartbeat(run: RunDir) -> tuple[Status | None, float | None]:
    """The newest heartbeat, and when its file was written. One that cannot be read is a failure that says so."""
    try:
        status = run.read_status()
    except RecordError as error:
        time_of = run.status.stat().st_mtime
        return Status(phase="failed", time=time_of, pid=0, message=str(error)), time_of
    try:
        return status, run.status.stat().st_mtime if status is not None else None
    except OSError:  # it has just been replaced, or moved away
        return status, None


def look_at_run(run: RunDir, queue: Queue) -> RunState:
    """The state of one run, whatever evaluations it needs."""
    submitted = newest_submissions(run.root.parent).get(run.root.name)
    seen = replace(see(run, (), queue.look()), started=run.root.is_dir())
    if submitted is not None:
        seen = replace(seen, submitted=submitted.submission.time)
    return decide(seen, time.time())


def _was_cancelled(known: KnownRun) -> bool:
    """Whether 'harness cancel' was called for a run since its newest start or submission."""
    assert known.run is not None
    note = cancellation(known.run)
    return note is not None and (known.submitted is None or note.time > known.submitted.submission.time)


def _recorded(run: RunDir, jobs: Sequence[EvalJob], evals: Sequence[str]) -> tuple[list[Record], str]:
    """Of the evaluations that have one, in the order of ``jobs``; and why the first of the others cannot be used."""
    found, by_id, broken = dict[EvalJob, Record](), dict[str, Record](), dict[str, str]()
    for path in sorted(run.root.glob("evals/*/record.json")):
        try:
            record = read_own_record(path)
        except RecordError as error:
            broken[path.parent.name] = str(error)
            continue
        found[record.job] = by_id[path.parent.name] = record
    wanted = [*(job.id for job in jobs), *evals] if broken else []
    records = [found[job] for job in jobs if job in found] or [by_id[name] for name in evals if name in by_id]
    return records, next((broken[name] for name in wanted if name in broken), "")


def _health(records: Sequence[Record]) -> tuple[str, ...]:
    """What any of them says, once."""
    found = [f"{health.name}: {health.message}" for record in records for health in record.health or ()]
    return tuple(dict.fromkeys(found))


def _committed(known: KnownRun, store: Store, profile: str) -> dict[str, Any]:
    """For a run without a folder: what the results folder has of it, as fields of ``Seen``."""
    paths = [store.results / "records" / profile / f"{job.id}.json" for job in known.jobs]
    if not paths or not all(path.exists() for path in paths):
        return {}
    try:
        records = [read_own_record(path) for path in paths]
    except RecordError:  # 'harness table' names it and says what is wrong
        return {}
    return {"recorded": True, "ap": records[0].metrics.get("AP"), "health": _health(records)}


def observe_all(
    found: FoundRuns, store: Store, profile: str, *, queue: Queue | None = None, leased: Collection[str] = ()
) -> list[Observed]:
    """The state of every run; the queue is asked once. leased: ids of what living launchers here still have to do."""
    scheduler = look_at_queue(store.runs) if queue is None else queue.look()
    return [
        Observed(known, observe(known, store, profile, scheduler, leased=_is_among(known, leased)))
        for known in found.runs
    ]


def _is_among(known: KnownRun, leased: Collection[str]) -> bool:
    return known.run is not None and known.run.root.name in leased


def states_of(planned: Plan, store: Store) -> dict[str, RunState]:
    """The states of a plan's trainings, by id."""
    scheduler = look_at_queue(store.runs)
    submitted = newest_submissions(store.runs)
    states = dict[str, RunState]()
    for item in of_plan(planned, store.runs):
        assert item.run is not None
        known = replace(item, submitted=submitted.get(item.run.root.name))
        states[item.run.root.name] = observe(known, store, planned.profile.name, scheduler)
    return states


def failed_ids(planned: Plan, store: Store) -> set[str]:
    """Ids of a plan's trainings that failed, were refused or were lost, and do not run now.

    Not those that somebody cancelled or stopped, and not those of which nothing is known.
    """
    return {run for run, state in states_of(planned, store).items() if state.kind in FAILED}


def is_over(observed: Sequence[Observed]) -> bool:
    """Whether no run waits or runs any more."""
    return is_idle(item.state for item in observed)
