"""Which runs a living ``harness run`` of a machine still has to do: one file per command, locked while it works.

``runs/launchers/<host>-<pid>.json``. The lock is the kernel's, so that a command that was killed leaves a file that
nobody holds, and whoever looks next removes it.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct

from detector.errors import RecordError
from detector.runs.status import Status
from detector.storage.locks import is_held
from detector.storage.reading import decode_json, regular_file
from detector.storage.staging import staging_name
from harness.launch.local import View

MOST_BYTES = 2**24  # of a file: a million runs


class Lease(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a command has to do. runs: training ids. started: seconds since the epoch."""

    host: str
    pid: int
    started: float
    runs: tuple[str, ...]


def launchers_folder(runs: Path) -> Path:
    """Where the files are. runs: the runs folder."""
    return runs / "launchers"


@contextmanager
def leasing(runs: Path, train_ids: Sequence[str]) -> Iterator[Callable[[str], None]]:
    """Say, while the block runs, that this command works on these runs; what it gives is told of each that ended.

    Where the file cannot be written, nothing is said: no run is kept back by that.
    """
    lease = Lease(host=socket.gethostname(), pid=os.getpid(), started=time.time(), runs=tuple(train_ids))
    with ExitStack() as stack:
        file: IO[bytes] | None = None
        with suppress(OSError):
            file = stack.enter_context(_written(launchers_folder(runs), lease))

        def ended(train_id: str) -> None:
            nonlocal lease
            left = tuple(item for item in lease.runs if item != train_id)
            lease = msgspec.structs.replace(lease, runs=left)
            if file is not None:
                with suppress(OSError):
                    _rewrite(file, lease)

        yield ended


def leased(runs: Path) -> set[str]:
    """Ids of the runs that living commands still have to do. Files of commands that are gone are removed."""
    found = set[str]()
    for path in launchers_folder(runs).glob("*.json"):
        with suppress(OSError, RecordError), regular_file(path, most=MOST_BYTES) as file:
            if _is_left(file):
                _remove(path, file)
                continue
            found.update(decode_json(file.read(MOST_BYTES), Lease, where=str(path)).runs)
    return found


class LeasedView:
    """A view that tells also ``ended`` of each run that has ended."""

    def __init__(self, view: View, ended: Callable[[str], None]) -> None:
        self.view, self.ended = view, ended

    def update(self, train_id: str, status: Status | None) -> None:
        """The newest heartbeat of a run."""
        self.view.update(train_id, status)

    def note(self, train_id: str, text: str) -> None:
        """Something that a person should know of a run that goes on."""
        self.view.note(train_id, text)

    def finish(self, train_id: str, text: str) -> None:
        """A run has ended: how, in words."""
        self.ended(train_id)
        self.view.finish(train_id, text)


@contextmanager
def _written(folder: Path, lease: Lease) -> Iterator[IO[bytes]]:
    """The command's file, locked before others can see it, and removed at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{re.sub(r'[^A-Za-z0-9._-]', '_', lease.host)}-{lease.pid}"
    temporary = staging_name(folder / name)
    with open(temporary, "w+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.write(msgspec.json.encode(lease))
            file.flush()
            path = _link(temporary, folder, name)
        finally:
            temporary.unlink(missing_ok=True)
        try:
            yield file
        finally:
            path.unlink(missing_ok=True)


def _link(temporary: Path, folder: Path, name: str) -> Path:
    """Give the file its name. A container may have a living command of the same host and number: then another."""
    number = 1
    while True:
        path = folder / (f"{name}.json" if number == 1 else f"{name}-{number}.json")
        with suppress(OSError):
            if not is_held(path):
                path.unlink(missing_ok=True)
        try:
            os.link(temporary, path)
        except FileExistsError:
            number += 1
            continue
        return path


def _rewrite(file: IO[bytes], lease: Lease) -> None:
    """In its place, so that the lock stays: in one write of the same length, of which no reader sees half."""
    size = os.fstat(file.fileno()).st_size
    os.pwrite(file.fileno(), msgspec.json.encode(lease).ljust(size), 0)


def _is_left(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: those who look do not block each other
    except BlockingIOError:
        return False
    return True


def _remove(path: Path, file: IO[bytes]) -> None:
    if os.path.samestat(path.stat(), os.fstat(file.fileno())):  # not what a new command has just put there
        path.unlink(missing_ok=True)
