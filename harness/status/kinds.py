"""What is seen of a run, and the states that it can be in, as data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from detector.runs.status import Status
from harness.failures.classes import FailureName
from harness.slurm.states import SchedulerState

Kind = Literal[
    "not started",
    "waiting for its turn",
    "refused",
    "held",
    "pending",
    "requeued",
    "starting",
    "running",
    "evaluating",
    "waiting",
    "no progress",
    "preempted",
    "cancelled",
    "stopped",
    "done",
    "died before start",
    "failed",
    "lost?",
    "lost",
    "unknown",
]
LIVING: tuple[Kind, ...] = (
    *("waiting for its turn", "held", "pending", "requeued"),
    *("starting", "running", "evaluating", "waiting", "no progress"),
)
# What --retry-failed runs again: what ended although nobody asked it to.
FAILED: tuple[Kind, ...] = ("refused", "preempted", "died before start", "failed", "lost", "lost?")
# What the command that began it goes on with.
RESUMABLE: tuple[Kind, ...] = ("preempted", "cancelled", "stopped", "lost", "lost?")
# Longer than a healthy run goes without a heartbeat: reading COCO, a slow first step, scoring on a busy machine.
STALE_SECONDS = 600.0


@dataclass(frozen=True)
class Seen:
    """What was seen of a run at one moment. Times are seconds since the epoch."""

    started: bool = True  # there is a folder
    recorded: bool = False
    ap: float | None = None
    evaluations: str = ""  # "1 of 3 evaluations", where some are missing
    status: Status | None = None
    written: float | None = None  # when the heartbeat's file was written, by the clock of the disk
    locked: bool = False  # a living process of this machine holds its lock
    scheduler: SchedulerState | None = None
    other_rank: str = ""  # message of the first process other than rank 0 that failed
    tail: str = ""  # of the log where it failed, else of what rank 0 printed
    submitted: float | None = None  # when its newest submission was written down
    health: tuple[str, ...] = ()  # of the records, in words
    launched: float | None = None  # the newest change of the local launcher's files
    leased: bool = False  # a living launcher of this machine still has it to do
    cancelled: bool = False  # 'harness cancel' was called since its newest start or submission
    broken: str = ""  # why a record that is there cannot be used


@dataclass(frozen=True)
class RunState:
    """A run's state. progress: share of the phase, 0..1. eta: seconds to the end. age: of the heartbeat, in seconds.

    message: how it ended, what it waits for (of a job that waits: Slurm's own word), or why its state is not known.
    silent: seconds without getting ahead. While it trains, since the last line of its log: seconds_per_iteration;
    images_per_second; data_share, of the time that it waited for data, 0..1; device_busy, of the time that the GPU ran
    kernels; note: why it waits for its data.
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
    silent: float | None = None
    last: Kind | None = None  # of an unknown state, and of one without progress: what its heartbeat says that it did
    submitted: bool = False  # whether this is the state of a submission to Slurm
    job: str = ""  # Slurm's job, with the index of an array's element
    cluster: str = ""  # the cluster file of its submission
    user: str = ""  # who submitted it; "" for oneself
    asked: float | None = None  # seconds since the queue said this; None: now


def is_idle(states: Iterable[RunState]) -> bool:
    """Whether no run waits or runs, as far as is known, so that only a new command changes anything."""
    return not any(state.kind in (*LIVING, "unknown") for state in states)
