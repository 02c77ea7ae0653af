"""Notes of ``harness cancel``: runs that a person asked to stop. Each counts until the run is started again."""

from __future__ import annotations

import getpass
import time
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from detector.errors import RecordError
from detector.runs.folder import RunDir
from detector.storage.files import write_json
from detector.storage.reading import read_json


class Cancellation(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a run was cancelled (seconds since the epoch), and by whom."""

    time: float
    user: str = ""


def cancelled_folder(runs: Path) -> Path:
    """Where the notes are. runs: the runs folder."""
    return runs / "cancelled"


def note_cancelled_run(run: RunDir) -> None:
    """Write down that the run is cancelled now."""
    write_json(_note(run), Cancellation(time=time.time(), user=_user()))


def cancellation(run: RunDir) -> Cancellation | None:
    """The note of a run that was cancelled and not started since; None without one, or where it cannot be read."""
    try:
        return read_json(_note(run), Cancellation)
    except (RecordError, OSError):
        return None


def forget_cancelled_run(run: RunDir) -> None:
    """Remove the note: the run is started again."""
    with suppress(OSError):
        _note(run).unlink(missing_ok=True)


def _note(run: RunDir) -> Path:
    # Not in the run's folder: a run that only waits in a queue has none.
    return cancelled_folder(run.root.parent) / f"{run.root.name}.json"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in some containers
        return ""
