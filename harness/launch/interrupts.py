"""SIGTERM means the same as Ctrl-C, and a second one does not tear what the first began."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """What is started here outlives the terminal's Ctrl-C, which reaches children too, until ``_stop`` has its turn."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def terminate_is_interrupt() -> Iterator[None]:
    """SIGTERM stops as cleanly as Ctrl-C."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
