"""Who may submit a run: one submission at a time, by a file in the run's folder."""

from __future__ import annotations

import time
from pathlib import Path

from msgspec import Struct

from detector.runs.folder import RunDir
from detector.storage.files import read_json, write_once

# How long a submission may take from its file to its job in the queue, and a heartbeat be silent.
GRACE_SECONDS = 180.0


class Reservation(Struct, frozen=True, forbid_unknown_fields=True):
    """In a run's folder: the submission that trains it."""

    token: str


def reservation_file(run: RunDir) -> Path:
    """Says which submission trains the run."""
    return run.root / "claim.json"


def holder_of(run: RunDir) -> str | None:
    """The token that holds the run, or None."""
    return read_json(reservation_file(run), Reservation).token if reservation_file(run).exists() else None


def reserve(run: RunDir, token: str, *, living: set[str]) -> bool:
    """Take the run for a submission; False where another of the ``living`` ones has it.

    A claim whose submission has ended is replaced.
    """
    path = reservation_file(run)
    for _ in range(2):
        if write_once(path, Reservation(token)):
            return True
        holder = holder_of(run)
        if holder == token or holder in living:
            return holder == token
        path.unlink(missing_ok=True)
    return False


def release(run: RunDir, token: str) -> None:
    """Give the run back, if it is this submission's."""
    if holder_of(run) == token:
        reservation_file(run).unlink(missing_ok=True)


def is_busy(run: RunDir, *, now: float | None = None) -> bool:
    """Whether somebody trains a run that is not queued: a living process here, or elsewhere by a fresh heartbeat.

    The heartbeat of a job that was submitted from here is a dead one's, since the queue does not have that job.
    """
    if run.is_locked():
        return True
    status = run.read_status()
    if status is None or status.job is not None or status.phase not in ("starting", "training", "evaluating"):
        return False
    return (time.time() if now is None else now) - status.time < GRACE_SECONDS
