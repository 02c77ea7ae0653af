"""Looks at runs: records, heartbeats, locks, the launcher's files, and a queue where there is one. Free of torch."""

from __future__ import annotations

import logging
import shlex
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, get_args

from msgspec import to_builtins

from detector.errors import RecordError, SchedulerError
from detector.job import EvalJob
from detector.record import Record
from detector.rundir import RunDir, Status, read_json
from harness.failures import Context, FailureName, advise
from harness.plan import Plan
from harness.results import Store, read_record
from harness.run_folders import FoundRuns, KnownRun, of_plan
from harness.run_logs import output, tail
from harness.run_state import FAILED, Kind, RunState, SchedulerState, Seen, decide, describe, is_settled

logger = logging.getLogger(__name__)

NAME_WIDTH = 46


class Scheduler(Protocol):
    """One look at a queue: whoever makes it has asked the queue once, and answers for every run from that."""

    def states(self, run: RunDir) -> SchedulerState | None:
        """What the queue says of the run; None where it knows nothing of it, now or before."""


class NoScheduler:
    """This machine alone: locks and heartbeats say all there is."""

    def states(self, run: RunDir) -> SchedulerState | None:
        """Nothing."""
        return None


def look_at_queue(runs: Path) -> Scheduler:
    """The queue as it is now. runs: the runs folder, where submissions are noted.

    A queue that does not answer is no empty one: then heartbeats alone are left, and nobody is called lost for it.
    """
    from harness.slurm_queue import SlurmQueue, has_submissions

    if not has_submissions(runs):
        return NoScheduler()
    try:
        return SlurmQueue(runs)
    except SchedulerError as error:
        logger.warning("%s States are those of the heartbeats alone.", error)
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
    """One look at a run's folder. jobs: the evaluations that it is to have; without any, it is never ``recorded``."""
    values = _recorded(run, jobs)
    evaluations = f"{len(values)} of {len(jobs)} evaluations" if len(values) < len(jobs) else ""
    if values and (one_is_enough or len(values) == len(jobs)):
        return Seen(recorded=True, ap=values[0], evaluations=evaluations)
    try:
        status = run.read_status()
    except RecordError as error:
        status = Status(phase="failed", time=run.status.stat().st_mtime, pid=0, message=str(error))
    locked, queue = is_locked(run), scheduler.states(run)
    if locked or (status is not None and status.phase in ("stopped", "done")):
        return Seen(status=status, locked=locked, scheduler=queue, evaluations=evaluations)
    failed = status is not None and status.phase == "failed"
    printed = None if failed else output(run, 0)
    other = None if failed else run.first_failure()
    return Seen(
        status=status,
        scheduler=queue,
        other_rank=other.message if other is not None else "",
        tail=tail(run.log) if failed else tail(printed) if printed is not None else "",
        launched=run.submitit.stat().st_mtime if run.submitit.is_dir() else None,
    )


def is_locked(run: RunDir) -> bool:
    """Whether a process of this machine holds the run; what may not be opened is not ours, hence not held by us."""
    try:
        return run.is_locked()
    except PermissionError:
        return False


def _recorded(run: RunDir, jobs: Sequence[EvalJob]) -> list[float | None]:
    """AP of those evaluations that have their record, in the order of ``jobs``."""
    found = {}
    for path in run.root.glob("evals/*/record.json"):
        try:
            record = read_json(path, Record)
        except RecordError:  # 'harness table' says what is wrong with it
            continue
        found[record.job] = record.metrics.get("AP")
    return [found[job] for job in jobs if job in found]


def _committed(known: KnownRun, store: Store, profile: str) -> dict[str, Any]:
    """Of a run that is not here: what the results folder has of it."""
    paths = [store.results / "records" / profile / f"{job.id}.json" for job in known.jobs]
    if not all(path.exists() for path in paths):
        return {}
    return {"recorded": True, "ap": read_record(paths[0]).metrics.get("AP")}


def observe_all(found: FoundRuns, store: Store, profile: str) -> list[Observed]:
    """The state of every run, by one look at the queue."""
    scheduler = look_at_queue(store.runs)
    return [Observed(known, observe(known, store, profile, scheduler)) for known in found.runs]


def failed_ids(planned: Plan, store: Store) -> set[str]:
    """Trainings of a plan that were started, did not end well, and do not run now."""
    scheduler = look_at_queue(store.runs)
    known = [item for item in of_plan(planned, store.runs) if item.exists]
    return {
        item.run.root.name
        for item in known
        if item.run is not None and observe(item, store, planned.profile.name, scheduler).kind in FAILED
    }


def lines(observed: Sequence[Observed]) -> list[str]:
    """A line a run: its rows, seed, training and state."""
    names = [_cut(" = ".join(item.known.refs)) for item in observed]
    width = max(map(len, names), default=0)
    return [
        f"{name:{width}}  seed {item.known.seed}  {item.known.run.root.name if item.known.run else '-':16}  "
        f"{describe(item.state)}"
        for name, item in zip(names, observed, strict=True)
    ]


def _cut(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 3]}..."


def summary(observed: Sequence[Observed], found: FoundRuns, runs: Path, profile: str) -> list[str]:
    """Counts of the states, and what else lies in the runs folder."""
    kinds: Counter[Kind] = Counter(item.state.kind for item in observed)
    counted = ", ".join(f"{kinds[kind]} {kind}" for kind in get_args(Kind) if kinds[kind])
    plural = "" if len(observed) == 1 else "s"
    said = [f"{len(observed)} run{plural}{': ' if counted else ''}{counted}; in {runs}"]
    if found.others:
        said.append(f"Other run folders there, of no row asked for at profile {profile}: {found.others}.")
    said += [f"{path} cannot be read: of another version, or damaged." for path in found.unreadable]
    return said


def next_commands(observed: Sequence[Observed], context: ContextOf) -> list[str]:
    """For each class of failure its sentence, and the command for the first run that failed so."""
    said: dict[FailureName, str] = {}
    for item in observed:
        name = item.state.failure
        if item.state.kind == "failed" and name is not None and name not in said:
            sentence, command = advise(name, context.of(item.known))
            said[name] = f"{name}: {sentence}\n  next: {command}"
    return list(said.values())


@dataclass(frozen=True)
class ContextOf:
    """The commands about a run, as they are to be typed. options: what ``run`` was given beside profile and seeds."""

    profile: str
    options: tuple[str, ...]
    data: Path | None
    runs: Path

    def of(self, known: KnownRun) -> Context:
        """The commands' arguments for one run."""
        ref, profile = known.refs[0], f"--profile {self.profile}"
        options = "".join(f" {shlex.quote(option)}" for option in self.options)
        folder = known.run.root.name if known.run is not None else ref
        return Context(
            run=f"{ref} {profile}{f' --seeds {known.seed + 1}' if known.seed else ''}{options}",
            logs=folder,
            explain=f"{ref} {profile}",
            data=shlex.quote(str(self.data)) if self.data is not None else "DIR",
            runs=shlex.quote(str(self.runs)),
        )


def as_data(observed: Sequence[Observed], found: FoundRuns) -> dict[str, Any]:
    """The same for --json."""
    return {
        "runs": [
            {
                "rows": list(item.known.refs),
                "seed": item.known.seed,
                "training": item.known.run.root.name if item.known.run is not None else None,
                "folder": str(item.known.run.root) if item.known.run is not None else None,
                "state": item.state.kind,
                **{name: value for name, value in to_builtins(item.state).items() if name != "kind"},
                "text": describe(item.state),
            }
            for item in observed
        ],
        "other_folders": found.others,
        "unreadable": [str(path) for path in found.unreadable],
    }


def is_over(observed: Sequence[Observed]) -> bool:
    """Whether there is nothing to watch any more."""
    return is_settled(item.state for item in observed)
