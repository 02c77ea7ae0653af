"""Storage that fails for a while: a full disk, a file server that is away for a minute. Free of torch."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from typing import Final, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
# What a network file system answers while its server is away.
AWAY: Final = frozenset(
    {errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EAGAIN}
)
RETRY_SECONDS = 300.0  # less than the ten minutes after which the other processes of a run give up waiting
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 15.0


def retry(action: Callable[[], T], what: str, *, seconds: float | None = None) -> T:
    """Do ``action``; repeat it while the disk is full or the file server away, for ``seconds`` at most.

    what: for the log, such as "reading 17.jpg". seconds: ``RETRY_SECONDS`` if None. Any other error is raised at
    once, and the last one when the time is over. ``action`` must be safe to repeat.
    """
    end = time.monotonic() + (RETRY_SECONDS if seconds is None else seconds)
    wait = FIRST_WAIT_SECONDS
    while True:
        try:
            return action()
        except OSError as error:
            if error.errno not in FULL | AWAY or time.monotonic() + wait > end:
                raise
            logger.warning("%s: %s; trying again in %.1f s", what, error, wait)
        time.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)
