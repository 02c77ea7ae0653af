"""What a machine must have for loader workers: shared memory and open files. Free of torch."""

from __future__ import annotations

import errno
import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from detector.errors import TrainingError

SHARED_MEMORY: Final = Path("/dev/shm")
PREFETCH: Final = 2  # batches that each worker prepares ahead
IN_USE: Final = 2  # batches that the training still holds
FILES_PER_WORKER: Final = 6  # pipes and locks between it and the training, and its batches
FILES_BESIDE: Final = 24  # checkpoints, logs, images, connections
MIB: Final = 2**20

LOWER = "lower execution.loader_workers in the profile"
_LACKING_MEMORY = re.compile(r"allocate shared memory|out of shared memory|No space left on device|Bus error")
# A received handle for which no file could be opened has the second message.
_LACKING_FILES = re.compile(r"Too many open files|received \d+ items of ancdata")
_DEAD = re.compile(r"DataLoader worker \(pid\(?s?\)? ([\d, ]+)\) (?:is killed by signal: ([\w ]+)|exited unexpectedly)")


def shared_bytes_needed(batch_bytes: int, workers: int) -> int:
    """Bytes of shared memory that the batches of one process's workers take at most."""
    return batch_bytes * (PREFETCH * workers + IN_USE)


def check_room(batch_bytes: int, workers: int) -> None:
    """Before the workers start: whether the machine has room for their batches. batch_bytes: of the largest batch.

    Raises TrainingError, which says what to change.
    """
    needed, beside = shared_bytes_needed(batch_bytes, workers), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    space = shared_space()
    # Processes beside this one may have begun to fill what is free.
    if space is not None and (space[0] < needed or space[1] < needed * beside):
        raise TrainingError(lack_of_memory(workers, needed * beside, space[0], batch_bytes=batch_bytes))
    check_files(workers)


def shared_space(folder: Path = SHARED_MEMORY) -> tuple[int, int] | None:
    """Free and all bytes of shared memory; None where there is none of its own."""
    try:
        space = os.statvfs(folder)
    except (OSError, AttributeError):
        return None
    return space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize


def lack_of_memory(workers: int, needed: int | None, free: int | None, *, batch_bytes: int = 0) -> str:
    """The message for too little shared memory."""
    has = "is full" if free is None else f"has {_mib(free)} left"
    if needed is None:
        wants, size = "", "8g"
    else:
        wants = (
            f"; this training needs up to {_mib(needed)} of it ({workers} loader workers, batches of up to "
            f"{_mib(batch_bytes)})"
        )
        size = f"{-(-needed * 5 // 4 // 2**30)}g"
    return (
        f"{SHARED_MEMORY}, through which loader workers hand images over, {has}{wants}. Start the container with more "
        f"of it (docker: --shm-size={size}, or --ipc=host), empty it, or {LOWER} (now {workers}; 0 needs none of it)."
    )


def _mib(size: int) -> str:
    return f"{size / MIB:,.0f} MiB" if size >= 10 * MIB else f"{size / MIB:.1f} MiB"


def check_files(workers: int) -> None:
    """Raise the limit of open files where it must be and may be. Raises TrainingError where it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = open_files() + FILES_PER_WORKER * workers + FILES_BESIDE
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard == resource.RLIM_INFINITY or hard >= needed:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
            return
    raise TrainingError(lack_of_files(workers, needed=needed, limit=soft))


def open_files() -> int:
    """How many this process has open; a guess where the system does not tell."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            return len(os.listdir(folder))
    return FILES_BESIDE


def lack_of_files(workers: int, *, needed: int | None = None, limit: int | None = None) -> str:
    """The message for too few open files."""
    may = f"may open {limit} files" if limit is not None else "has opened as many files as it may"
    wants = f"; with {workers} loader workers it needs {needed}" if needed is not None else ""
    return (
        f"Too many open files: this process {may}{wants}. Raise the limit (in the shell: ulimit -n 4096; docker: "
        f"--ulimit nofile=4096), or {LOWER} (now {workers})."
    )


def needs_more_room(error: OSError | RuntimeError, workers: int) -> TrainingError | None:
    """The error that says what to change, where shared memory or open files ran out in a worker; else None."""
    number, text = getattr(error, "errno", None), str(error)
    if number in (errno.EMFILE, errno.ENFILE) or _LACKING_FILES.search(text):
        return TrainingError(lack_of_files(workers))
    if number == errno.ENOSPC or _LACKING_MEMORY.search(text):
        return TrainingError(lack_of_memory(workers, None, None))
    return None


@contextmanager
def explained_deaths(workers: int) -> Iterator[None]:
    """Around a training: torch says that a loader worker died wherever the training is; here as TrainingError."""
    try:
        yield
    except RuntimeError as error:
        explained = death_of_worker(error, workers)
        if explained is None:
            raise
        raise explained from error


def death_of_worker(error: BaseException, workers: int) -> TrainingError | None:
    """What torch says of a loader worker that died, with what to change; None for any other error."""
    found = _DEAD.search(str(error))
    if found is None:
        return None
    number, signal = found[1], (found[2] or "").strip()
    if signal.startswith("Bus error"):
        return TrainingError(f"Loader worker {number} died (Bus error). {lack_of_memory(workers, None, None)}")
    how = f"was killed by signal: {signal}" if signal else "ended without a word"
    if signal in ("", "Killed"):
        return TrainingError(
            f"Loader worker {number} {how}, as the kernel does where main memory runs out. {LOWER.capitalize()} "
            f"(now {workers}), or give the run more memory."
        )
    return TrainingError(
        f"Loader worker {number} {how}. Perhaps an image breaks its decoder: 'harness data verify DIR' reads them all. "
        f"With execution.loader_workers: 0 in the profile the training says where it dies."
    )
