"""The numbers of a training as it runs: JSON lines, and the same as TensorBoard scalars."""

from __future__ import annotations

import errno
import json
import logging
import os
from types import TracebackType

from detector.rundir import RunDir, write_atomic

logger = logging.getLogger(__name__)


class MetricsLog:
    """Appends to ``metrics.jsonl``; a resume first drops what an earlier start logged after its checkpoint."""

    def __init__(self, run: RunDir, *, start: int, enabled: bool) -> None:
        self.run, self.start, self.enabled = run, start, enabled
        self._unwritten = b""

    def __enter__(self) -> MetricsLog:
        if self.enabled:
            from tensorboardX import SummaryWriter

            self._keep_until_start()
            self.run.metrics.touch()
            purge = self.start + 1 if self.start else None
            self.board = SummaryWriter(str(self.run.tensorboard), purge_step=purge)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.enabled:
            self._append()
            self.board.close()

    def write(self, iteration: int, values: dict[str, float]) -> None:
        """One line: the number of steps taken and the values. What storage refuses now is written with a later line."""
        if not self.enabled:
            return
        self._unwritten += (json.dumps({"iteration": iteration, **values}) + "\n").encode()
        self._append()
        for name, value in values.items():
            self.board.add_scalar(f"train/{name}", value, iteration)

    def _append(self) -> None:
        try:
            size = self.run.metrics.stat().st_size
            try:
                with self.run.metrics.open("ab", buffering=0) as file:
                    written = file.write(self._unwritten)
            except OSError:
                os.truncate(self.run.metrics, size)  # no half line
                raise
            if written != len(self._unwritten):
                os.truncate(self.run.metrics, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            logger.warning("the losses were not written: %s", error)
            return
        self._unwritten = b""

    def _keep_until_start(self) -> None:
        if not self.run.metrics.exists():
            return
        # A line that a crash cut short is dropped too.
        lines = [line for line in self.run.metrics.read_text(encoding="utf-8").split("\n")[:-1] if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["iteration"] <= self.start]
        write_atomic(self.run.metrics, "".join(f"{line}\n" for line in kept).encode())
