"""The state of a run, decided from what was seen of it. Reads no files. A run that is not seen may still be alive."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from detector.runs.status import TRAINING_SHARE, Status, fraction_done, waiting_text
from detector.runs.timing import timing_text
from detector.storage.shown import one_line
from harness.failures.classes import FailureName, classify
from harness.slurm.states import SchedulerState
from harness.units import duration

Kind = Literal[
    "not started",
    "pending",
    "requeued",
    "starting",
    "running",
    "evaluating",
    "waiting",
    "stopped",
    "done",
    "failed",
    "lost?",
    "lost",
]
LIVING: tuple[Kind, ...] = ("pending", "requeued", "starting", "running", "evaluating", "waiting")
FAILED: tuple[Kind, ...] = ("failed", "lost", "lost?")  # what --retry-failed runs again
# Longer than a healthy run goes without a heartbeat: reading COCO, a slow first step, scoring on a busy machine.
STALE_SECONDS = 600.0
MESSAGE_WIDTH = 90
NOTE_WIDTH = 76
RESUMES = "resumes with the same command"


@dataclass(frozen=True)
class Seen:
    """What was seen of a run at one moment. Times are seconds since the epoch."""

    started: bool = True  # there is a folder
    recorded: bool = False
    ap: float | None = None
    evaluations: str = ""  # "1 of 3 evaluations", where some are missing
    status: Status | None = None
    locked: bool = False  # a living process of this machine holds its lock
    scheduler: SchedulerState | None = None
    other_rank: str = ""  # message of the first process other than rank 0 that failed
    tail: str = ""  # of the log where it failed, else of what rank 0 printed
    health: tuple[str, ...] = ()  # of the records, in words
    launched: float | None = None  # the newest change of the launcher's files
    broken: str = ""  # why a record that is there cannot be used


@dataclass(frozen=True)
class RunState:
    """A run's state. progress: share of the phase, 0..1. eta: seconds to the end. age: of the heartbeat, in seconds.

    While it trains, since the last line of its log: seconds_per_iteration; images_per_second; data_share, of the time
    that it waited for data, 0..1; device_busy, of the time that the GPU ran kernels; note: why it waits for its data.
    """

    kind: Kind
    message: str = ""
    failure: FailureName | None = None
    ap: float | None = None
    progress: float | None = None
    eta: float | None = None
    age: float | None = None
    requeues: int = 0
    seconds_per_iteration: float | None = None
    images_per_second: float | None = None
    data_share: float | None = None
    device_busy: float | None = None
    note: str = ""
    health: tuple[str, ...] = ()  # what is wrong with the training although it goes on, or ended
    here: bool = True  # False: only its heartbeat shows that it lives, no process of this machine and no queue


def decide(seen: Seen, now: float) -> RunState:
    """The state now. A heartbeat without a process here may be another machine's; it counts for ``STALE_SECONDS``."""
    queue = seen.scheduler
    if seen.recorded:
        return RunState("done", seen.evaluations, ap=seen.ap, health=seen.health)
    if queue is not None and queue.phase == "pending":
        return RunState("requeued" if queue.requeues else "pending", queue.reason, requeues=queue.requeues)
    if seen.locked or (queue is not None and queue.phase == "running"):
        return _living(seen, now, here=True)
    if not seen.started:
        return RunState("not started")
    if seen.broken:
        return RunState("failed", seen.broken, "record")
    status = seen.status
    if status is None:
        return _without_heartbeat(seen, now)
    age = _age(status, now)
    if status.phase == "failed":
        return RunState("failed", status.message, classify(status.message, seen.tail, exit_code=_exit(queue)), age=age)
    if status.phase == "stopped":
        return RunState("stopped", status.message, age=age)
    if status.phase == "done":  # evaluated with other test settings than these rows need
        return RunState("stopped", f"trained, {seen.evaluations}", age=age)
    if seen.other_rank:
        return RunState("failed", seen.other_rank, classify(seen.other_rank, seen.tail), age=age)
    if queue is not None:
        return _gone(seen, queue, age)
    if age < STALE_SECONDS:
        return _living(seen, now, here=False)
    return RunState("lost?", failure=_hint(seen.tail), age=age)


def _living(seen: Seen, now: float, *, here: bool) -> RunState:
    status, requeues = seen.status, seen.scheduler.requeues if seen.scheduler else 0
    if status is None or status.phase in ("stopped", "failed", "done"):  # left by an earlier start
        return RunState("starting", requeues=requeues, here=here)
    age = _age(status, now)
    if status.waiting:
        waits = waiting_text(status, since=age if age < STALE_SECONDS else 0.0)
        return RunState("waiting", waits, age=age, requeues=requeues, note=status.waiting_why, here=here)
    if status.phase == "starting":
        return RunState("starting", age=age, requeues=requeues, here=here)
    eta = _eta(status, age)
    if status.phase == "evaluating":
        return RunState(
            "evaluating",
            progress=status.progress,
            eta=eta,
            age=age,
            requeues=requeues,
            health=status.health,
            here=here,
        )
    return RunState(
        "running",
        ap=status.ap,
        progress=status.iteration / max(1, status.iterations),
        eta=eta,
        age=age,
        requeues=requeues,
        seconds_per_iteration=status.seconds_per_iteration,
        images_per_second=status.images_per_second,
        data_share=status.data_share,
        device_busy=status.device_busy,
        note=status.note,
        health=status.health,
        here=here,
    )


def _eta(status: Status, age: float) -> float | None:
    """Seconds to the end, with a guess for the evaluation; None where the pace is not known yet."""
    if status.seconds_per_iteration is None:
        return None
    whole = status.iterations * status.seconds_per_iteration / TRAINING_SHARE
    return max(0.0, whole * (1 - fraction_done(status)) - age)


def _without_heartbeat(seen: Seen, now: float) -> RunState:
    """The state of a run without a heartbeat: it has just been launched, or ended before its first one."""
    name = classify("", seen.tail, exit_code=_exit(seen.scheduler), started=False)
    if name != "unknown" or "Traceback (most recent call last)" in seen.tail:
        return RunState("failed", _last_line(seen.tail), name)
    if seen.scheduler is not None:
        return RunState("lost", seen.scheduler.reason)
    if seen.launched is None:
        return RunState("not started")
    age = max(0.0, now - seen.launched)
    return RunState("starting", here=False) if age < STALE_SECONDS else RunState("lost?", age=age)


def _gone(seen: Seen, queue: SchedulerState, age: float) -> RunState:
    """The state of a run whose heartbeat says that it runs, but whose job has left the queue."""
    name = classify(queue.reason, seen.tail, exit_code=queue.exit_code)
    if name == "unknown":
        return RunState("lost", queue.reason, age=age, requeues=queue.requeues)
    return RunState("failed", queue.reason or _last_line(seen.tail), name, age=age, requeues=queue.requeues)


def _hint(tail: str) -> FailureName | None:
    name = classify("", tail)
    return None if name == "unknown" else name


def _exit(queue: SchedulerState | None) -> int | None:
    return queue.exit_code if queue is not None else None


def _age(status: Status, now: float) -> float:
    return max(0.0, now - status.time)


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def state_text(state: RunState) -> str:
    """The state as one line, whatever a run or the scheduler said."""
    return one_line(_state_text(state))


def _state_text(state: RunState) -> str:
    suffix = f", requeued {state.requeues}x" if state.requeues and state.kind != "requeued" else ""
    age = duration(state.age) if state.age is not None else "?"
    if state.kind == "done":
        ap = f"AP {state.ap:.1f}" if state.ap is not None else "AP -"
        return f"done ({ap}{f'; {state.message}' if state.message else ''})"
    if state.kind in ("pending", "requeued"):
        named = f"requeued {state.requeues}x" if state.kind == "requeued" else "pending"
        return f"{named} ({state.message or 'no reason yet'})"
    if state.kind == "waiting":
        return f"{state.message}{_doubt(state, age)}{suffix}"
    if state.kind in ("starting", "running", "evaluating"):
        return _describe_living(state, age) + suffix
    if state.kind == "stopped":
        return f"stopped ({f'{state.message}; ' if state.message else ''}{RESUMES}){suffix}"
    if state.kind == "failed":
        return f"failed ({state.failure}): {_short(state.message) or 'without a word'}{suffix}"
    if state.kind == "lost":
        return f"lost: gone from the queue{f' ({state.message})' if state.message else ''}; {RESUMES}{suffix}"
    if state.kind == "lost?":
        perhaps = f" (perhaps: {state.failure})" if state.failure else ""
        return f"lost? no word for {age}, no process here{perhaps}; if it runs nowhere else: {RESUMES}"
    return state.kind


def timing_lines(state: RunState) -> list[str]:
    """Where the time of a training goes, and why it waits for its data or its disk; nothing of other states."""
    if state.kind == "waiting":
        return [one_line(f"note: {state.note}")] if state.note else []
    if state.seconds_per_iteration is None:
        return []
    timing = timing_text(state.seconds_per_iteration, state.data_share, state.device_busy)
    return [timing, *textwrap.wrap(f"note: {state.note}" if state.note else "", NOTE_WIDTH)]


def health_lines(state: RunState) -> list[str]:
    """What is wrong with a training although no step failed."""
    return [line for text in state.health for line in textwrap.wrap(f"health: {text}", NOTE_WIDTH)]


def _short(message: str) -> str:
    line = next(iter(message.splitlines()), "")
    return line if len(line) <= MESSAGE_WIDTH else f"{line[: MESSAGE_WIDTH - 3]}..."


def _doubt(state: RunState, age: str) -> str:
    """What speaks against a run being alive, for the end of its line."""
    if not state.here:
        return ", just launched" if state.age is None else f", last word {age} ago, no process here"
    return f", but no word for {age}" if state.age is not None and state.age >= STALE_SECONDS else ""


def _describe_living(state: RunState, age: str) -> str:
    doubt = _doubt(state, age)
    if state.kind == "starting" or state.progress is None:
        return f"starting{doubt}"
    if state.kind == "evaluating":
        return f"evaluating {state.progress:.0%}{doubt}"
    eta = duration(state.eta) if state.eta is not None else "?"
    so_far = f", AP so far {state.ap:.1f}" if state.ap is not None else ""
    return f"running {state.progress:.0%}, ETA {eta}{so_far}{doubt}"


def is_idle(states: Iterable[RunState]) -> bool:
    """Whether no run waits or runs, so that only a new command changes anything."""
    return not any(state.kind in LIVING for state in states)
