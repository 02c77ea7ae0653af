"""Checkpoints: written whole or not at all, read without running code, every checksum verified."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch

from detector.errors import WeightsError
from detector.storage.files import write_atomic
from detector.storage.reading import open_regular
from detector.storage.retry import AWAY, FULL, retry
from detector.weights.archives import read_archive

logger = logging.getLogger(__name__)

T = TypeVar("T")
KEEP = 2


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain data) atomically, without a second copy of it in memory."""
    write_atomic(path, lambda file: _write(state, file))


def _write(state: dict[str, Any], file: BinaryIO) -> None:
    """``torch.save``, with the operating system's own error where it cannot write: torch may hide it in its own."""
    sink = _Sink(file)
    try:
        torch.save(state, sink)  # type: ignore[arg-type]
    except RuntimeError as error:
        if sink.error is not None:
            raise sink.error from error
        raise


class _Sink:
    """What ``torch.save`` needs of a file; keeps the first error."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        return self._kept(lambda: self.file.write(data))

    def flush(self) -> None:
        self._kept(self.file.flush)

    def _kept(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except OSError as error:
            self.error = self.error or error
            raise


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU. Raises WeightsError where it is damaged or would run code.

    OSError where storage stays unavailable: a checkpoint that cannot be read now is not a damaged one.
    """
    try:
        return retry(lambda: _read(path), f"reading {path}")
    except FileNotFoundError as error:
        raise WeightsError(f"No checkpoint at {path}. Run 'harness run' for it first.") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        with open_regular(path, raises=WeightsError) as file:
            state = read_archive(file, os.fstat(file.fileno()).st_size)
    except WeightsError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in (*AWAY, errno.ENOENT):
            raise cause from None
        raise
    except Exception as error:  # any bytes are a program to the unpickler, and fail in their own way
        raise WeightsError(f"{path} is not a readable checkpoint: {error}.") from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path} is not a readable checkpoint: it holds a {type(state).__name__}.")
    return state


def save_step(folder: Path, iteration: int, state: dict[str, Any]) -> None:
    """Write the checkpoint to resume from after ``iteration`` steps, and drop all but the newest two.

    On a full disk the older of the two makes room first; the newest is never given up.
    """
    path = folder / f"{iteration:07d}.pt"
    try:
        save(path, state)
    except OSError as error:
        older = [step for step in _steps(folder)[1:] if step != path] if error.errno in FULL else []
        if not older:
            raise
        logger.warning("%s: %s; %s makes room", path, error, older[-1].name)
        older[-1].unlink(missing_ok=True)
        save(path, state)
    for old in _steps(folder)[KEEP:]:
        old.unlink(missing_ok=True)


def load_newest(folder: Path) -> dict[str, Any] | None:
    """The newest readable checkpoint, or None; a damaged one is skipped, with a warning in the log.

    Raises OSError where storage stays unavailable: starting anew would throw away what was trained.
    """
    for path in retry(lambda: _steps(folder), f"reading {folder}"):
        try:
            return load(path)
        except WeightsError as error:
            logger.warning("%s The one before is used.", error)
    return None


def drop_steps(folder: Path) -> None:
    """Remove the checkpoints to resume from, once the final weights are there."""
    for path in _steps(folder):
        path.unlink(missing_ok=True)


def _steps(folder: Path) -> list[Path]:
    try:  # not glob: newer Pythons take unavailable storage for an empty folder
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted((folder / name for name in names if fnmatch(name, "[0-9]*.pt")), reverse=True)
