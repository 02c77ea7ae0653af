"""Why a training waits for its data: workers, shared memory, or storage. Free of torch."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import dataclass
from pathlib import Path

from detector.data.workers.room import SHARED_MEMORY, shared_space

WAIT_SHARE = 0.2  # of the time; less than that costs little
WINDOWS = 3  # in a row
FREE_SHARED_BYTES = 64 * 2**20  # all that containers get by default
BUSY_SHARE = 0.5  # a worker that computes less than that waits for something else


@dataclass(frozen=True)
class Supply:
    """What prepares the images of one process.

    busy: share of the workers' time (0..1) in which they computed or waited for a core; None where the system does not
    tell. free_shared_bytes: None where there is no such memory.
    """

    workers: int
    cores: int
    busy: float | None = None
    free_shared_bytes: int | None = None


class WorkerClock:
    """How long the worker processes of this process computed, or waited for a core, by Linux' own count."""

    def __init__(self) -> None:
        self._before: dict[int, float] = {}

    def lap(self, seconds: float) -> float | None:
        """Their share of the last ``seconds``, since the lap before; None where that is not known of any of them."""
        now = _seconds_on_cores()
        spent = [now[pid] - self._before[pid] for pid in now.keys() & self._before.keys()]
        self._before = now
        return min(1.0, sum(spent) / (len(spent) * seconds)) if spent and seconds > 0 else None


def _seconds_on_cores() -> dict[int, float]:
    """By process id of each worker, seconds in which its main thread ran or waited for a core."""
    found = {}
    for process in multiprocessing.active_children():
        try:
            ran, waited = Path(f"/proc/{process.pid}/schedstat").read_text().split()[:2]
        except (OSError, ValueError):  # it has just ended, or this is no Linux
            continue
        if process.pid is not None:
            found[process.pid] = (int(ran) + int(waited)) / 1e9
    return found


def supply_here(workers: int, busy: float | None) -> Supply:
    """What this process has. busy: of its workers."""
    space = shared_space()
    return Supply(workers, _cores(), busy, None if space is None else space[0])


def _cores() -> int:
    """Of this process; the processes of a training on one machine share its cores, unless Slurm gave each its own."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    own = int(os.environ.get("SLURM_CPUS_PER_TASK") or max(1, usable // beside))
    return min(usable, own)


def advice(data_share: float, supply: Supply) -> str:
    """Why the training waits for data, in words, with the next step. data_share: of its time, 0..1."""
    return f"the training waits for data {data_share:.0%} of its time: {_cause(supply)}"


def _cause(supply: Supply) -> str:
    workers, cores = _count(supply.workers, "loader worker"), _count(supply.cores, "core")
    more = f"raise execution.loader_workers in the profile (up to {max(1, supply.cores - 1)})"
    if supply.workers == 0:
        if supply.cores == 1:
            return "it prepares its images itself, on the one core that it has. Give it more cores, then " + more
        return f"it prepares its images itself, on one of {cores}. To have workers do it, {more}"
    if supply.free_shared_bytes is not None and supply.free_shared_bytes < FREE_SHARED_BYTES:
        return (
            f"{SHARED_MEMORY}, through which workers hand images over, has {supply.free_shared_bytes / 2**20:.0f} MiB "
            "left. Start the container with more of it (docker: --shm-size 8g, or --ipc host)"
        )
    if supply.busy is not None and supply.busy < BUSY_SHARE:
        return (
            f"its {workers} compute only {supply.busy:.0%} of the time, so reading the files is slow. Copy the images "
            "to a local disk and name it with --data, or " + more
        )
    if supply.workers < supply.cores - 1:
        return f"its {workers} are too few, of {cores}. Now {more}"
    return f"its {workers} are at work on all of {cores}. Give the run more cores per GPU, or leave these to it alone"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
