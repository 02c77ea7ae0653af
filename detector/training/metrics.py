"""The numbers of a training as it runs: JSON lines, the same as TensorBoard scalars, and a line for a person."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import time
from types import TracebackType

from detector.runs.findings import logged
from detector.runs.folder import RunDir
from detector.runs.log_lines import window_text
from detector.runs.timing import StepTiming
from detector.storage.files import write_atomic
from detector.storage.reading import LARGE, read_bytes
from detector.storage.retry import RETRY_SECONDS, retry
from detector.training.board import Board

logger = logging.getLogger(__name__)

LAST_RETRY_SECONDS = 20.0  # a scheduler that asks for a stop kills soon after
SAID_SECONDS = 2.0  # between two lines for a person: the windows of a tiny training take less


class MetricsLog:
    """Appends to ``metrics.jsonl``; a resume first drops what an earlier start logged after its checkpoint."""

    def __init__(self, run: RunDir, *, start: int, enabled: bool) -> None:
        self.run, self.start, self.enabled = run, start, enabled
        self.board = Board(run.tensorboard, start=start)
        self._unwritten = b""
        self._said = -math.inf

    def __enter__(self) -> MetricsLog:
        if self.enabled:
            retry(self._keep_until_start, f"writing {self.run.metrics}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.enabled:
            try:  # a resume does not log these iterations again
                retry(self._append, f"writing {self.run.metrics}", seconds=LAST_RETRY_SECONDS, unseen=True)
            except OSError as refused:
                logger.warning("the last losses were not written: %s", refused)

    def write(self, iteration: int, values: dict[str, float]) -> None:
        """One line: the number of steps taken and the values. What storage refuses now is written with a later line."""
        if not self.enabled:
            return
        self._unwritten += (json.dumps({"iteration": iteration, **values}) + "\n").encode()
        try:
            self._append()
        except OSError as error:
            logger.warning("the losses were not written: %s", error)
        self.board.add(iteration, values)

    def say(
        self, iteration: int, iterations: int, losses: dict[str, float], *, rate: float, timing: StepTiming
    ) -> None:
        """The same for a person, in the run's log: at most once in ``SAID_SECONDS``, and the last window always."""
        now = time.monotonic()
        if not self.enabled or (now - self._said < SAID_SECONDS and iteration < iterations):
            return
        self._said = now
        logger.info("%s", window_text(iteration, iterations, losses, rate=rate, timing=timing))

    def _append(self) -> None:
        """Raises OSError, without half a line in the file."""
        size = self.run.metrics.stat().st_size
        try:
            with self.run.metrics.open("ab", buffering=0) as file:
                written = file.write(self._unwritten)
        except OSError:
            os.truncate(self.run.metrics, size)
            raise
        if written != len(self._unwritten):
            os.truncate(self.run.metrics, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._unwritten = b""

    def _keep_until_start(self) -> None:
        if not self.run.metrics.exists():
            self.run.metrics.touch()
            return
        # A line that a crash cut short, or that a disk spoilt, is dropped too.
        lines = read_bytes(self.run.metrics, most=LARGE, retry_seconds=RETRY_SECONDS).split(b"\n")[:-1]
        kept = [line for line in lines if (found := logged(line)) is not None and found["iteration"] <= self.start]
        write_atomic(self.run.metrics, b"".join(line + b"\n" for line in kept))
