"""What a run reports while it runs: heartbeat, log, failure."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from detector.errors import HarnessError
from detector.runs.assignment import WORKER_LOG
from detector.runs.folder import RunDir
from detector.runs.log_lines import LOG_FORMAT
from detector.runs.status import Phase, Status
from detector.storage.files import write_json
from detector.storage.retry import FULL, Waiting
from detector.worker.silence import Pulse

logger = logging.getLogger(WORKER_LOG)
SHOWN_SECONDS = 2.0  # a wait for storage that is shorter is not worth a word


class Heartbeat:
    """Rewrites a ``Status`` file about once a second, so that a launcher, or a person, sees what the run does.

    job: the id of the Slurm job that the process is a task of; None for any other process.
    """

    INTERVAL = 1.0  # seconds

    def __init__(self, path: Path, iterations: int, *, job: str | None = None) -> None:
        self.path = path
        self.pulse = Pulse()
        self.state = Status(phase="starting", time=0.0, pid=os.getpid(), iterations=iterations, job=job)

    def beat(self, phase: Phase, *, force: bool = False, ahead: bool = False, **values: Any) -> None:
        """Note the phase and any of Status's fields; written when due or when forced.

        ahead: the run got ahead, which no field but ``progressed`` tells. A new phase, iteration or share of an
        evaluation is noticed here.
        """
        import time

        news = force or phase != self.state.phase
        due = news or time.time() - self.state.time >= self.INTERVAL
        fresh = msgspec.structs.replace(self.state, phase=phase, **values)
        if ahead or self.state.progressed == 0.0 or _place(fresh) != _place(self.state):
            silence = self.pulse.ahead(phase, time.monotonic())
            fresh = msgspec.structs.replace(fresh, progressed=time.time(), silence=silence)
        if due:
            fresh = msgspec.structs.replace(fresh, time=time.time())
            try:
                # Waiting for the disk every second would take longer than anything else beside the training itself.
                write_json(self.path, fresh, flush=news)
            except OSError as error:  # a full disk or a file server that is away ends no training
                self._in_place(fresh, error)
        self.state = fresh

    @contextmanager
    def evaluating(self, images: int) -> Iterator[None]:
        """Around the evaluation of so many images: their scoring takes its time, and says nothing meanwhile."""
        self.pulse.images = images
        try:
            yield
        finally:
            self.pulse.images = 0

    def look(self, waiting: Waiting | None) -> None:
        """Say that the run waits for its storage, or not any more."""
        if waiting is None:
            if self.state.waiting:
                self.beat(self.state.phase, force=True, waiting="", waiting_why="", waiting_seconds=0.0)
        elif waiting.noteworthy and waiting.seconds >= SHOWN_SECONDS:
            self.beat(
                self.state.phase,
                waiting=waiting.what,
                waiting_why=waiting.why,
                waiting_seconds=waiting.seconds,
            )

    def _in_place(self, status: Status, error: OSError) -> None:
        """On a full disk: over the old heartbeat, whose space is there. One write: no reader sees half of it."""
        if error.errno not in FULL:
            logger.warning("the heartbeat was not written: %s", error)
            return
        try:
            with self.path.open("r+b", buffering=0) as file:
                file.write(msgspec.json.encode(status).ljust(self.path.stat().st_size))
        except OSError:
            logger.warning("the heartbeat was not written: %s", error)


def _place(status: Status) -> tuple[Phase, int, float]:
    """How far a run is."""
    return status.phase, status.iteration, status.progress


def log_to(path: Path) -> None:
    """Write what loggers say to the end of a run's log."""
    logging.basicConfig(filename=path, level=logging.INFO, format=LOG_FORMAT, force=True)


def report_failure(run: RunDir, rank: int, heartbeat: Heartbeat, error: BaseException) -> None:
    """Log the error and say it in the heartbeat; rank 0 reports the first failure, also that of another process.

    When one process ends, the others fail in a collective; only the first error says why.
    """
    with suppress(OSError):  # a full disk must not hide the error itself
        if rank:
            log_to(run.log)
        _log_failure(error)
        earlier = run.first_failure() if rank == 0 else None
        heartbeat.beat("failed", message=_describe(error) if earlier is None else earlier.message, force=True)


def _log_failure(error: BaseException) -> None:
    if isinstance(error, HarnessError):
        logger.error("%s: %s", type(error).__name__, error)
    else:
        logger.error("%s", "".join(traceback.format_exception(error)))


def _describe(error: BaseException) -> str:
    text = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
    return text[:2000]
