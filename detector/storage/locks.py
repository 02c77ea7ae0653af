"""The kernel's locks (``flock``) on files: each ends with the process that holds it, however it ends. Free of torch."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_SECONDS = 0.05


@contextmanager
def held(path: Path, *, wait: Callable[[], bool] | None = None) -> Iterator[None]:
    """Hold the lock file ``path``, made where it is missing.

    wait: called while another process holds the lock; once it returns False, BlockingIOError is raised. None: wait for
    as long as it takes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        if wait is None:
            fcntl.flock(file, fcntl.LOCK_EX)
        while wait is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not wait():
                    raise
                time.sleep(POLL_SECONDS)
        yield


def never() -> bool:
    """A ``wait`` that gives up at once."""
    return False


def is_held(path: Path) -> bool:
    """Whether a living process of this machine holds the lock. Raises PermissionError where it may not be opened."""
    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: those who only look do not block each other
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
