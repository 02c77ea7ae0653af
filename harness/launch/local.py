"""Runs on this machine, through submitit: on all its GPUs or cores, several side by side where they fit."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from msgspec.structs import replace

from detector.errors import RecordError
from detector.runs.assignment import Assignment
from detector.runs.folder import RunDir
from detector.runs.status import Status
from detector.storage.files import write_json
from detector.storage.retry import retry
from detector.worker.worker import Worker
from harness.failures.cause import cause
from harness.failures.classes import silent_end
from harness.failures.log_tail import last_lines, tail
from harness.launch.cancel import is_cancelled
from harness.launch.hangs import (
    MOST_STARTS,
    STACKS_SECONDS,
    Point,
    Watch,
    children,
    descendants,
    end_processes,
    is_alive,
    note_hang,
    point,
)
from harness.launch.interrupts import interrupts_ignored, stop, terminate
from harness.machine import free_memory_gb, processes_for, usable_cores, visible_gpus
from harness.registry.declarations import Execution

POLL_SECONDS = 0.5
ABANDONED_SECONDS = 30.0  # within which processes notice by themselves that another one of their run was killed
NOT_STARTED = "cancelled before it started"
FOREVER_MINUTES = 60 * 24 * 365


@dataclass(frozen=True)
class Slot:
    """A share of the machine for one run: these GPUs, or CPU threads where there are none."""

    gpus: tuple[int, ...]


@dataclass(frozen=True)
class Failure:
    """A run that ended without its records. stopped: it was asked to, and goes on when it is run again."""

    train_id: str
    message: str
    log: Path
    stopped: bool = False


@dataclass
class _Active:
    """A run in a slot. ``job`` is None where another command trains it, and this one only watches."""

    assignment: Assignment
    run: RunDir
    job: Any
    slot: Slot
    started: float  # seconds since the epoch
    tasks: int = 1
    watch: Watch = field(default_factory=Watch)
    abandoned: float | None = None  # since when (monotonic) some of its processes live and others are gone

    def status(self) -> Status | None:
        """The newest heartbeat of this start. None where there is none yet, or it cannot be read."""
        try:
            status = self.run.read_status()
        except (OSError, RecordError):
            return None
        earlier = self.job is not None and status is not None and status.time < self.started
        return None if earlier else status


def make_slots(execution: Execution, *, runs: int) -> list[Slot]:
    """One slot per run that fits beside the others: by GPUs, else by cores and free memory; at least one."""
    gpus = visible_gpus()
    wanted = execution.gpus_per_run
    if wanted == 0 or not gpus:
        cores = usable_cores() // execution.threads
        memory = int(free_memory_gb() // execution.memory_gb)
        return [Slot(())] * max(1, min(cores, memory, runs))
    size = len(gpus) if wanted == "all" else min(wanted, len(gpus))
    return [Slot(tuple(gpus[first : first + size])) for first in range(0, len(gpus) - size + 1, size)][: max(1, runs)]


def run_local(assignments: list[Assignment], slots: list[Slot], view: View) -> list[Failure]:
    """Run all assignments until they have their records. Returns those that failed or were cancelled.

    A run that gets no further is ended, and starts again from its newest checkpoint at most ``MOST_STARTS`` times from
    the same point. On KeyboardInterrupt, or any other error here, the runs save and stop before it passes on.
    """
    work = _Work(view, waiting=list(assignments), free=list(slots))
    try:
        while work.waiting or work.active:
            _start_waiting(work)
            time.sleep(POLL_SECONDS)
            terminate([item.job for item in work.active if work.is_cancelled(item.assignment)])
            for item in list(work.active):
                view.update(item.assignment.train.id, item.status())
                # Trainings survive a file server that is away for a while; so must the launcher.
                ended, done = retry(partial(_look, item), f"looking at {item.run.root}")
                if ended:
                    work.active.remove(item)
                    work.free.append(item.slot)
                    _end(work, item, done=done)
    except BaseException:
        stop([item.job for item in work.active])
        raise
    return work.failures


@dataclass
class _Work:
    """What a launcher has to do. hangs: by training, from which point it hung last, and how often from there."""

    view: View
    waiting: list[Assignment]
    free: list[Slot]
    begun: float = field(default_factory=time.time)  # seconds since the epoch
    active: list[_Active] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    hangs: dict[str, tuple[Point, int]] = field(default_factory=dict)

    def is_cancelled(self, assignment: Assignment) -> bool:
        """Whether a person cancelled its row since the launcher began."""
        return is_cancelled(Path(assignment.run_dir).parent, assignment.train, since=self.begun)

    def fail(self, failure: Failure, text: str) -> None:
        """Note a run that ended without its records; text: for the view."""
        self.failures.append(failure)
        self.view.finish(failure.train_id, text)


def _start_waiting(work: _Work) -> None:
    while work.waiting and work.free:
        assignment = work.waiting.pop(0)
        if work.is_cancelled(assignment):
            log = RunDir(Path(assignment.run_dir)).log
            work.fail(Failure(assignment.train.id, NOT_STARTED, log, stopped=True), NOT_STARTED)
        else:
            work.active.append(_start(assignment, work.free.pop(0)))


def _end(work: _Work, item: _Active, *, done: bool) -> None:
    """What becomes of a run whose processes have ended."""
    if done:
        if item.job is not None:  # what its processes printed is of no more use
            shutil.rmtree(item.run.submitit, ignore_errors=True)
        work.view.finish(item.assignment.train.id, "done")
    elif item.job is None:  # the other command is gone: take the run over
        work.waiting.append(item.assignment)
    elif item.watch.hung is not None and is_alive(item.status()):
        _end_of_hang(work, item)
    else:
        cancelled = work.is_cancelled(item.assignment)
        failure = retry(partial(_failure, item, cancelled=cancelled), "noting a failure")
        work.fail(failure, f"{'stopped' if failure.stopped else 'failed'}: {failure.message}")


def _end_of_hang(work: _Work, item: _Active) -> None:
    """Start a run again that got no further, or give up; its log has the stacks."""
    train_id, words = item.assignment.train.id, item.watch.words
    reached = retry(partial(point, item.run), f"looking at {item.run.root}")
    before, times = work.hangs.get(train_id, ((), 0))
    times = times + 1 if reached == before else 1
    work.hangs[train_id] = reached, times
    cancelled = work.is_cancelled(item.assignment)
    if times <= MOST_STARTS and not cancelled:
        what = f"it starts again from {reached[0]} ({times} of at most {MOST_STARTS} times from there)"
        note_hang(item.run, item.watch, what)
        work.view.note(train_id, f"{words}; {what}; the stacks of its processes are in {item.run.log}")
        work.waiting.insert(0, item.assignment)
        return
    note_hang(item.run, item.watch, "it was cancelled" if cancelled else "it is not started again")
    message = f"{words}; {'cancelled' if cancelled else f'so it was after {times} starts from {reached[0]}'}"
    phase: Literal["stopped", "failed"] = "stopped" if cancelled else "failed"
    retry(partial(_note_end, item, item.status(), phase, message), "noting a failure")
    work.fail(Failure(train_id, message, item.run.log, stopped=cancelled), f"{phase}: {message}")


def is_done(assignment: Assignment) -> bool:
    """Whether the assignment has all its records."""
    run = RunDir(Path(assignment.run_dir))
    return all(run.record(job.id).exists() for job in assignment.evals)


def _start(assignment: Assignment, slot: Slot) -> _Active:
    run = RunDir(Path(assignment.run_dir))
    if run.is_locked():
        return _Active(assignment, run, None, slot, time.time())
    import submitit

    batch = assignment.train.batch
    tasks = processes_for(batch.images // batch.images_per_group, len(slot.gpus))
    executor = submitit.LocalExecutor(folder=run.submitit)
    executor.update_parameters(
        timeout_min=FOREVER_MINUTES,
        tasks_per_node=tasks,
        gpus_per_node=len(slot.gpus),
        visible_gpus=slot.gpus,
        stderr_to_stdout=True,
    )
    started = time.time()
    with interrupts_ignored():
        job = executor.submit(Worker(replace(assignment, device="cuda" if slot.gpus else "cpu")))
    return _Active(assignment, run, job, slot, started, tasks)


def _look(item: _Active) -> tuple[bool, bool]:
    """Whether the run has ended, and whether it has its records."""
    _end_abandoned(item)
    _end_hung(item)
    ended = not item.run.is_locked() if item.job is None else bool(item.job.done())
    return ended, ended and is_done(item.assignment)


def _end_abandoned(item: _Active) -> None:
    """End the processes of a run of which one was killed.

    Once they are connected, the others notice it well within ``ABANDONED_SECONDS`` and say so. Killed earlier, it would
    keep them waiting to connect for up to half an hour.
    """
    if item.job is None or item.tasks == 1:
        return
    living = children(int(item.job.job_id))
    # submitit writes a result for each process that ended by itself, well or not.
    spoken = len(list(item.run.submitit.glob(f"{item.job.job_id}_*_result.pkl")))
    if not 0 < len(living) < item.tasks - spoken:
        item.abandoned = None
    elif item.abandoned is None:
        item.abandoned = time.monotonic()
    elif time.monotonic() - item.abandoned > ABANDONED_SECONDS:
        end_processes(living)


def _end_hung(item: _Active) -> None:
    """Ask the processes of a run that gets no further for their stacks, and end them a little later."""
    if item.job is None:
        return
    now, watch = time.monotonic(), item.watch
    if watch.hung is None and watch.look(item.status(), now):
        job = item.job.job_id
        outputs = [item.run.submitit / f"{job}_{rank}_log.out" for rank in range(item.tasks)]
        watch.ask_for_stacks(outputs, descendants(int(job)), now)
    elif watch.hung is not None and now - watch.hung >= STACKS_SECONDS:
        end_processes(descendants(int(item.job.job_id)))


def _failure(item: _Active, *, cancelled: bool) -> Failure:
    status = item.status()
    output = item.job.paths.stdout
    said = status if status is not None and status.phase == "stopped" else cause(item.run, status)
    if said is not None and said.time >= item.started:
        return Failure(item.assignment.train.id, said.message, item.run.log, stopped=said.phase == "stopped")
    where = _last_words(status)
    said_last = "".join(f": {line}" for line in last_lines(tail(output), count=1))
    how = "while it started" if where == "starting" else "and its processes were ended"
    message = f"cancelled {how}" if cancelled else f"{silent_end(where)}{said_last}"
    _note_end(item, status, "stopped" if cancelled else "failed", message)
    return Failure(item.assignment.train.id, message, output, stopped=cancelled)


def _note_end(item: _Active, status: Status | None, phase: Literal["stopped", "failed"], message: str) -> None:
    """Note the end in the heartbeat, as its process no longer could: else it looks alive on another machine."""
    if item.run.is_locked():  # another command has taken the run over
        return
    if not item.run.job.exists():
        write_json(item.run.job, item.assignment.train)
    words = Status(phase=phase, time=0.0, pid=0) if status is None else status
    write_json(item.run.status, replace(words, phase=phase, time=time.time(), message=message))


def _last_words(status: Status | None) -> str:
    if status is None:
        return "starting"
    return f"{status.phase}, iteration {status.iteration} of {status.iterations} (killed, or out of memory?)"


class View(Protocol):
    """What the launcher tells about its runs."""

    def update(self, train_id: str, status: Status | None) -> None:
        """The newest heartbeat of a run."""

    def note(self, train_id: str, text: str) -> None:
        """Something that a person should know of a run that goes on."""

    def finish(self, train_id: str, text: str) -> None:
        """A run has ended: how, in words."""
