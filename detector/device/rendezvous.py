"""How the processes of one Slurm job find each other: rank 0 takes a free port and writes its number to a file."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from msgspec import Struct
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from detector.errors import TrainingError
from detector.storage.files import write_json
from detector.storage.reading import read_json

WAIT_SECONDS = 1800.0  # rank 0 may wait for another command's training, but not for ever


class Meeting(Struct, frozen=True):
    """Where rank 0's store listens."""

    host: str
    port: int


def meet(file: Path, *, rank: int, world_size: int) -> TCPStore:
    """The store of this job's processes. A port computed from the job's id, as is common, can be another job's.

    file: on a file system that the nodes share, and of this start of this job only. Raises TrainingError where rank 0
    does not come.
    """
    if rank == 0:
        host = _own_name()
        store = TCPStore(host, 0, world_size, is_master=True, wait_for_workers=False)
        for old in file.parent.glob(".meeting-*"):
            old.unlink(missing_ok=True)
        write_json(file, Meeting(host, store.port))
        return store
    deadline = time.monotonic() + WAIT_SECONDS
    while not file.exists():
        if time.monotonic() > deadline:
            raise TrainingError(f"Rank 0 did not start within {WAIT_SECONDS:.0f} s; see its output.")
        os.listdir(file.parent)  # network file systems cache that a file was missing
        time.sleep(0.2)
    where = read_json(file, Meeting)
    return TCPStore(where.host, where.port, world_size, is_master=False, wait_for_workers=False)


def _own_name() -> str:
    """This node as the others know it: Slurm's name for it where that resolves, else the machine's own."""
    name = os.environ.get("MASTER_ADDR", "")
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return socket.gethostname()
    return name or socket.gethostname()
