"""How the processes of one run find each other without a port agreed on beforehand.

Rank 0 lets the system choose a free port and writes it into a file of the run, which all nodes see; the others read it.
A port that is taken, or one that an earlier start left in the file, can then stop nobody.
"""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from pathlib import Path

from msgspec import Struct
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from detector.errors import RecordError, TrainingError
from detector.rundir import read_json, write_json

logger = logging.getLogger(__name__)

WAIT_SECONDS = 300.0  # for the slowest process to start and import
CONNECT_SECONDS = 5.0
POLL_SECONDS = 0.2


class Place(Struct, frozen=True, forbid_unknown_fields=True):
    """Where rank 0 listens."""

    host: str
    port: int


def meet(path: Path, *, host: str, rank: int, size: int, wait_seconds: float = WAIT_SECONDS) -> TCPStore:
    """The store through which ``size`` processes join; every one calls this with its ``rank``.

    path: the file of this run, written by rank 0; host: a name of rank 0's node that the others can reach. Raises
    TrainingError where the others do not come, or rank 0 is not to be found, in ``wait_seconds``.
    """
    if rank == 0:
        store = TCPStore(host, 0, size, is_master=True, wait_for_workers=False)
        write_json(path, Place(host, store.port))
        return store
    end = time.monotonic() + wait_seconds
    last = "it has not written where it listens"
    while time.monotonic() < end:
        try:
            place = read_json(path, Place)
            # A place of an earlier start refuses, or answers to nobody: the file is read again.
            return TCPStore(
                place.host,
                place.port,
                size,
                is_master=False,
                timeout=timedelta(seconds=CONNECT_SECONDS),
                wait_for_workers=False,
            )
        except (RecordError, RuntimeError) as error:
            last = str(error).splitlines()[0]
            time.sleep(POLL_SECONDS)
    raise TrainingError(
        f"Process {rank} of {size} did not find process 0 within {wait_seconds:.0f} s ({last}). Do the nodes see each "
        "other and the folder of the runs?"
    )
