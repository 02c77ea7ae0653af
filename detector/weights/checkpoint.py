"""Checkpoints: written whole or not at all, read without running code (``weights_only``)."""

from __future__ import annotations

import io
import logging
import os
import zipfile
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch

from detector.errors import WeightsError
from detector.storage.files import write_atomic
from detector.storage.retry import FULL, retry

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
        content = retry(path.read_bytes, f"reading {path}")
    except FileNotFoundError as error:
        raise WeightsError(f"No checkpoint at {path}. Run 'harness run' for it first.") from error
    try:
        _check_sums(content)
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        raise WeightsError(f"{path} is not a readable checkpoint: {error}.") from error
    return state


def _check_sums(content: bytes) -> None:
    """Raise BadZipFile for a damaged part: torch.load does not look at the checksums that torch.save stores."""
    with zipfile.ZipFile(io.BytesIO(content)) as parts:
        damaged = parts.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"{damaged} has another checksum than when it was written")


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
