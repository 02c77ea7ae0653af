"""Checkpoints: written whole or not at all, read without running code (``weights_only``)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch

from detector.errors import WeightsError
from detector.patience import FULL
from detector.rundir import write_atomic

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
    """Read a checkpoint onto the CPU. Raises WeightsError where it is damaged or would run code."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"No checkpoint at {path}. Run 'harness run' for it first.") from error
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        raise WeightsError(f"{path} is not a readable checkpoint: {error}.") from error
    return state


def save_step(folder: Path, iteration: int, state: dict[str, Any]) -> None:
    """Write the checkpoint to resume from after ``iteration`` steps, and drop all but the newest two.

    On a full disk the older of the two makes room first; the newest is never given up.
    """
    path = folder / f"{iteration:07d}.pt"
    try:
        save(path, state)
    except OSError as error:
        older = [step for step in _steps(folder)[1:] if step != path]
        if error.errno not in FULL or not older:
            raise
        logger.warning("%s: %s; %s makes room", path, error, older[-1].name)
        older[-1].unlink(missing_ok=True)
        save(path, state)
    for old in _steps(folder)[KEEP:]:
        old.unlink(missing_ok=True)


def load_newest(folder: Path) -> dict[str, Any] | None:
    """The newest readable checkpoint, or None; a damaged one is skipped, said so in the log."""
    for path in _steps(folder):
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
    return sorted(folder.glob("[0-9]*.pt"), reverse=True)
