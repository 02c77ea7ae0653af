"""Reservations: each run is held by at most one submission, by a file in the run's folder."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from detector.errors import RecordError
from detector.runs.folder import RunDir
from detector.storage.files import write_once
from detector.storage.reading import read_json

logger = logging.getLogger(__name__)

# How long a submission may take until its job is in the queue, and how old the heartbeat of a living run may be.
GRACE_SECONDS = 180.0


class Reservation(Struct, frozen=True, forbid_unknown_fields=True):
    """Content of the file: the token of the submission that trains the run."""

    token: str


def reservation_file(run: RunDir) -> Path:
    """Where the reservation lies."""
    return run.root / "claim.json"


def holder_of(run: RunDir) -> str | None:
    """The token of the submission that holds the run, or None."""
    return read_json(reservation_file(run), Reservation).token if reservation_file(run).exists() else None


def reserve(run: RunDir, token: str, *, living: set[str]) -> bool:
    """Reserve the run for a submission; False where another submission among ``living`` holds it.

    A reservation whose submission has ended is replaced.
    """
    path = reservation_file(run)
    for _ in range(2):
        if write_once(path, Reservation(token)):
            return True
        try:
            holder = holder_of(run)
        except RecordError as error:
            logger.warning("%s Who trains the run is not known. If nobody does, move the file away.", error)
            return False
        if holder == token or holder in living:
            return holder == token
        path.unlink(missing_ok=True)
    return False


def release(run: RunDir, token: str) -> None:
    """Remove the reservation, if it is this submission's; one that cannot be read stays."""
    with suppress(RecordError):
        if holder_of(run) == token:
            reservation_file(run).unlink(missing_ok=True)


def is_busy(run: RunDir, *, now: float | None = None) -> bool:
    """Whether somebody trains a run that is not queued: a process of this machine, or another by a fresh heartbeat.

    The heartbeat of a Slurm job does not count: its job is not in the queue, so it has ended.
    """
    if run.is_locked():
        return True
    status = run.read_status()
    if status is None or status.job is not None or status.phase not in ("starting", "training", "evaluating"):
        return False
    return (time.time() if now is None else now) - status.time < GRACE_SECONDS
