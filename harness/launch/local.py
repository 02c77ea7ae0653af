"""Runs on this machine, through submitit: on all its GPUs or cores, several side by side where they fit."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
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
from harness.failures.classes import silent_end
from harness.failures.log_tail import last_lines, tail
from harness.launch.cancel import is_cancelled
from harness.launch.interrupts import interrupts_ignored
from harness.machine import free_memory_gb, processes_for, usable_cores, visible_gpus
from harness.registry.declarations import Execution

POLL_SECONDS = 0.5
STOP_SECONDS = 60.0  # for runs to save their state after Ctrl-C; a slower one still ends by itself
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

    On KeyboardInterrupt, or any other error here, the runs save and stop before it passes on.
    """
    waiting, active, failures = list(assignments), list[_Active](), list[Failure]()
    free, begun = list(slots), time.time()
    try:
        while waiting or active:
            while waiting and free:
                assignment = waiting.pop(0)
                if _is_cancelled(assignment, begun):
                    log = RunDir(Path(assignment.run_dir)).log
                    failures.append(Failure(assignment.train.id, NOT_STARTED, log, stopped=True))
                    view.finish(assignment.train.id, NOT_STARTED)
                else:
                    active.append(_start(assignment, free.pop(0)))
            time.sleep(POLL_SECONDS)
            _terminate([item for item in active if _is_cancelled(item.assignment, begun)])
            for item in list(active):
                train_id = item.assignment.train.id
                view.update(train_id, item.status())
                # Trainings survive a file server that is away for a while; so must the launcher.
                ended, done = retry(partial(_look, item), f"looking at {item.run.root}")
                if not ended:
                    continue
                active.remove(item)
                free.append(item.slot)
                if done:
                    view.finish(train_id, "done")
                elif item.job is None:  # the other command is gone: take the run over
                    waiting.append(item.assignment)
                else:
                    cancelled = _is_cancelled(item.assignment, begun)
                    failure = retry(partial(_failure, item, cancelled=cancelled), "noting a failure")
                    failures.append(failure)
                    view.finish(train_id, f"{'stopped' if failure.stopped else 'failed'}: {failure.message}")
    except BaseException:
        _stop(active)
        raise
    return failures


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
    ended = not item.run.is_locked() if item.job is None else bool(item.job.done())
    return ended, ended and is_done(item.assignment)


def _end_abandoned(item: _Active) -> None:
    """End the processes of a run of which one was killed.

    Once they are connected, the others notice it well within ``ABANDONED_SECONDS`` and say so. Killed earlier, it would
    keep them waiting to connect for up to half an hour.
    """
    if item.job is None or item.tasks == 1:
        return
    living = _children(int(item.job.job_id))
    # submitit writes a result for each process that ended by itself, well or not.
    spoken = len(list(item.run.submitit.glob(f"{item.job.job_id}_*_result.pkl")))
    if not 0 < len(living) < item.tasks - spoken:
        item.abandoned = None
    elif item.abandoned is None:
        item.abandoned = time.monotonic()
    elif time.monotonic() - item.abandoned > ABANDONED_SECONDS:
        for pid in living:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    """The processes that ``pid`` has started; none where the system cannot tell."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _failure(item: _Active, *, cancelled: bool) -> Failure:
    status = item.status()
    output = item.job.paths.stdout
    said = status if status is not None and status.phase in ("failed", "stopped") else item.run.first_failure()
    if said is not None and said.time >= item.started:
        return Failure(item.assignment.train.id, said.message, item.run.log, stopped=said.phase == "stopped")
    where = _last_words(status)
    said_last = "".join(f": {line}" for line in last_lines(tail(output), count=1))
    message = "cancelled while it started" if cancelled else f"{silent_end(where)}{said_last}"
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


def _is_cancelled(assignment: Assignment, since: float) -> bool:
    return is_cancelled(Path(assignment.run_dir).parent, assignment.train, since=since)


def _last_words(status: Status | None) -> str:
    if status is None:
        return "starting"
    return f"{status.phase}, iteration {status.iteration} of {status.iterations} (killed, or out of memory?)"


def _stop(active: list[_Active]) -> None:
    """Ask our runs to save and end, and wait for them for up to ``STOP_SECONDS``.

    submitit's own ``cancel`` kills after one second, too soon to save a large model. Its controller passes SIGTERM on.
    """
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        if not _terminate(active):
            return
        time.sleep(0.5)


def _terminate(active: list[_Active]) -> bool:
    """Send SIGTERM to our runs that live; returns whether there are any. A run that just starts may miss one signal."""
    # Not ``job.done()``, which looks for a file: the storage may be away.
    jobs = [item.job for item in active if item.job is not None]
    living = [job for job in jobs if job.get_info()["jobState"] == "RUNNING"]
    for job in living:
        os.kill(int(job.job_id), signal.SIGTERM)
    return bool(living)


class View(Protocol):
    """What the launcher tells about its runs."""

    def update(self, train_id: str, status: Status | None) -> None:
        """The newest heartbeat of a run."""

    def finish(self, train_id: str, text: str) -> None:
        """A run has ended: how, in words."""
