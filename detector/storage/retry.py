"""Storage that fails for a while: a full disk, a file server that is away for a minute. Free of torch."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

T = TypeVar("T")

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
# What a network file system answers while its server is away.
AWAY: Final = frozenset(
    {errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EAGAIN}
)
RETRY_SECONDS = 300.0  # less than the ten minutes after which the other processes of a run give up waiting
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 15.0
LOOK_SECONDS = 0.1  # between two looks at whether the wait is to end


@dataclass(frozen=True)
class Waiting:
    """A wait for storage. what: the file; why: what the system answers; seconds: how long it has lasted."""

    what: str
    why: str
    seconds: float
    noteworthy: bool = True  # False: not worth a word yet


Look = Callable[[Waiting | None], None]
_looks: list[tuple[int, Look]] = []  # with the process that is watched: one that is forked from it is another


@contextmanager
def watched_by(look: Look) -> Iterator[None]:
    """Inside, each wait of this process is told to ``look``, some times per second; None when a wait is over.

    What ``look`` raises ends the wait.
    """
    own = (os.getpid(), look)
    _looks.append(own)
    try:
        yield
    finally:
        _looks.remove(own)


def tell(waiting: Waiting | None) -> None:
    """Say that this process waits, or (None) that it does not wait any more."""
    for process, look in tuple(_looks):
        if process == os.getpid():
            look(waiting)


def retry(action: Callable[[], T], what: str, *, seconds: float | None = None, unseen: bool = False) -> T:
    """Do ``action``; repeat it while the disk is full or the file server away, for ``seconds`` at most.

    what: the file, for the log and for ``watched_by``. seconds: ``RETRY_SECONDS`` if None. unseen: the wait is short,
    part of a stop, and goes on although a stop was asked for. Any other error is raised at once, and the last one when
    the time is over. ``action`` must be safe to repeat.
    """
    began = time.monotonic()
    end = began + (RETRY_SECONDS if seconds is None else seconds)
    wait = FIRST_WAIT_SECONDS
    while True:
        try:
            result = action()
        except OSError as error:
            if error.errno not in FULL | AWAY or time.monotonic() + wait > end:
                raise
            why = error.strerror or str(error)
            import logging  # not above: ``harness --help`` reads this file and logs nothing

            logging.getLogger(__name__).warning("%s: %s; trying again in %.1f s", what, error, wait)
        else:
            if wait > FIRST_WAIT_SECONDS and not unseen:
                tell(None)
            return result
        if unseen or not _looks:
            time.sleep(wait)
        else:
            _watched_sleep(wait, what, why, began)
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)


def _watched_sleep(wait: float, what: str, why: str, began: float) -> None:
    """Sleep in short pieces, since a signal does not end a sleep, and what it asks for is to be seen soon."""
    until = time.monotonic() + wait
    while (left := until - time.monotonic()) > 0:
        tell(Waiting(what, why, time.monotonic() - began))
        time.sleep(min(LOOK_SECONDS, left))
