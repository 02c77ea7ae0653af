"""What a run says about itself: phase, progress, losses. Free of torch."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from detector.runs.timing import timing_text

Phase = Literal["starting", "training", "evaluating", "done", "stopped", "failed"]

ALIVE: tuple[Phase, ...] = ("starting", "training", "evaluating")
# Roughly the share of a run's time that training takes; evaluation takes the rest.
TRAINING_SHARE = 0.92


class Status(Struct, frozen=True, kw_only=True):
    """The heartbeat of a run, rewritten every second or so by its rank 0. Times are seconds since the epoch."""

    phase: Phase
    time: float
    pid: int
    iteration: int = 0
    iterations: int = 0
    loss: float | None = None
    seconds_per_iteration: float | None = None  # this and the next three: since the last line of the log
    data_share: float | None = None  # of the time that the training waited for data, 0..1
    device_busy: float | None = None  # of the time that a GPU ran kernels, 0..1; None on a CPU
    images_per_second: float | None = None
    note: str = ""  # why the training waits for its data
    waiting: str = ""  # the file that a full disk, or a file server that is away, keeps from being written or read
    waiting_why: str = ""  # what the system answers
    waiting_seconds: float = 0.0
    message: str = ""
    progress: float = 0.0  # share of the evaluation that is done, 0..1
    ap: float | None = None  # percent, of the newest evaluation during the training
    health: tuple[str, ...] = ()  # what the training's log shows to be wrong
    job: str | None = None  # the id of the scheduler's job that the process runs in
    progressed: float = 0.0  # when it last got ahead: a new iteration, image of an evaluation, or phase
    silence: float = 0.0  # seconds without getting ahead after which it counts as hung; 0: not known
    left: Literal["", "time", "asked"] = ""  # why it stopped: its time is nearly up, or somebody asked it to


def fraction_done(status: Status | None) -> float:
    """Share of a run that is done, 0..1."""
    if status is None or status.iterations == 0:
        return 0.0
    if status.phase == "done":
        return 1.0
    if status.phase == "evaluating":
        return TRAINING_SHARE + (1 - TRAINING_SHARE) * status.progress
    return TRAINING_SHARE * status.iteration / status.iterations


def waiting_text(status: Status, *, since: float = 0.0) -> str:
    """What a run waits for, and how long. since: seconds since its heartbeat."""
    seconds = status.waiting_seconds + since
    lasted = f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.0f} min"
    return f"waiting for disk: {status.waiting} ({lasted})"


def progress_text(status: Status | None) -> str:
    """A heartbeat in a few words."""
    if status is not None and status.waiting and status.phase in ALIVE:
        return waiting_text(status)
    if status is None or status.phase == "starting":
        return "starting"
    if status.phase == "training":
        loss = f", loss {status.loss:.3f}" if status.loss is not None else ""
        seconds = status.seconds_per_iteration
        timing = "" if seconds is None else f", {timing_text(seconds, status.data_share, status.device_busy)}"
        return f"iteration {status.iteration}/{status.iterations}{loss}{timing}"
    return f"evaluating {status.progress:.0%}" if status.phase == "evaluating" else status.phase
