"""One directory a run: its paths, atomic writes, its lock and its state. Free of torch.

Nothing here depends on a database or on a lock that outlives a crash: a file is either whole or not there, and the
lock is the kernel's (``flock``), which ends with the process that holds it.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

import msgspec
from msgspec import Struct

from detector.errors import RecordError
from detector.record import Record

T = TypeVar("T")
Phase = Literal["starting", "training", "evaluating", "done", "stopped", "failed"]


class Status(Struct, frozen=True, kw_only=True):
    """The heartbeat of a run, rewritten every second or so by its rank 0. Times are seconds since the epoch."""

    phase: Phase
    time: float
    pid: int
    iteration: int = 0
    iterations: int = 0
    loss: float | None = None
    seconds_per_iteration: float | None = None
    message: str = ""
    progress: float = 0.0  # share of the evaluation that is done, 0..1
    ap: float | None = None  # percent, of the newest evaluation during the training
    job: str | None = None  # of a scheduler, that the process is in


@dataclass(frozen=True)
class RunDir:
    """The folder of one training, keyed by its id."""

    root: Path

    @property
    def job(self) -> Path:
        """The resolved TrainJob."""
        return self.root / "job.json"

    @property
    def environment(self) -> Path:
        """Versions and device of the newest start."""
        return self.root / "environment.json"

    @property
    def code_diff(self) -> Path:
        """In what the code of the newest start differed from its commit; there only if it did."""
        return self.root / "code.diff"

    @property
    def status(self) -> Path:
        """The heartbeat, a ``Status``."""
        return self.root / "status.json"

    def failure(self, rank: int) -> Path:
        """The last words of a process other than rank 0, a ``Status``; there only if it failed."""
        return self.root / f"failure-{rank}.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a logged iteration."""
        return self.root / "metrics.jsonl"

    @property
    def log(self) -> Path:
        """What a person reads after a failure."""
        return self.root / "log.txt"

    @property
    def tensorboard(self) -> Path:
        """Event files."""
        return self.root / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """``0000400.pt`` (to resume from) and ``final.pt`` (the result)."""
        return self.root / "checkpoints"

    @property
    def final(self) -> Path:
        """The weights that are the training's result, with their network and the categories."""
        return self.checkpoints / "final.pt"

    @property
    def submitit(self) -> Path:
        """The launcher's transport files."""
        return self.root / "submitit"

    def evaluation(self, eval_id: str) -> Path:
        """Folder of one evaluation."""
        return self.root / "evals" / eval_id

    def detections(self, eval_id: str) -> Path:
        """COCO result list, gzip'd JSON."""
        return self.evaluation(eval_id) / "detections.json.gz"

    def record(self, eval_id: str) -> Path:
        """The record: there if and only if the evaluation is done."""
        return self.evaluation(eval_id) / "record.json"

    def read_record(self, eval_id: str) -> Record | None:
        """The finished record, or None."""
        path = self.record(eval_id)
        return read_json(path, Record) if path.exists() else None

    def has_records(self) -> bool:
        """Whether any evaluation of the training is done."""
        return any(self.root.glob("evals/*/record.json"))

    def read_status(self) -> Status | None:
        """The newest heartbeat, or None where none was written yet."""
        if not self.status.exists():
            return None
        try:
            return read_json(self.status, Status)
        except RecordError:
            if self.status.read_bytes().strip(b"\0"):
                raise
            return None  # a machine lost power before the newest one was on its disk

    def first_failure(self) -> Status | None:
        """Of the processes other than rank 0 that failed in this start, the first."""
        found = []
        for path in self.root.glob("failure-*.json"):
            with suppress(RecordError):  # a new start has just forgotten it
                found.append(read_json(path, Status))
        return min(found, key=lambda status: status.time, default=None)

    def forget_failures(self) -> None:
        """Remove what an earlier start left."""
        for path in self.root.glob("failure-*.json"):
            path.unlink(missing_ok=True)

    def is_locked(self) -> bool:
        """Whether a living process is training or evaluating here."""
        try:
            with open(self.root / ".lock") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: who else looks is not in the way
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    @contextmanager
    def lock(self, wait: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Hold the run for this process. Where another holds it: wait as long as ``wait()``, then BlockingIOError."""
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / ".lock", "a") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not wait():
                        raise
                    time.sleep(0.05)
            yield


def write_atomic(path: Path, content: bytes | Callable[[BinaryIO], object], *, flush: bool = True) -> None:
    """Write a whole file or nothing: to a temporary file beside it, flushed to the disk, then renamed.

    content: or what writes it. flush=False, for what is soon written again: after a loss of power it may be empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any, *, flush: bool = True) -> None:
    """Write a struct or plain data as indented JSON with sorted keys, as ``write_atomic`` does."""
    content = msgspec.json.format(msgspec.json.encode(value, order="sorted"), indent=2) + b"\n"
    write_atomic(path, content, flush=flush)


def read_json(path: Path, kind: type[T]) -> T:
    """Read one JSON file into ``kind``. Raises RecordError naming the file and what is wrong in it."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.DecodeError, OSError) as error:
        raise RecordError(f"{path} cannot be read as {kind.__name__}: {error}. Move it away and run again.") from error
