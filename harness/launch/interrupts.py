"""Signals while runs go on: SIGTERM means the same as Ctrl-C, and Ctrl-C reaches the launcher only."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Ctrl-C does not end processes that are started here, although a terminal sends it to children too.

    The launcher asks them to save and end (``_stop``), which takes them longer.
    """
    with _handled(signal.SIGINT, signal.SIG_IGN):
        yield


@contextmanager
def terminate_is_interrupt() -> Iterator[None]:
    """SIGTERM stops as cleanly as Ctrl-C."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    with _handled(signal.SIGTERM, interrupt):
        yield


@contextmanager
def _handled(number: signal.Signals, handler: Callable[[int, Any], None] | signal.Handlers) -> Iterator[None]:
    """Set the handler for a while. Python allows it in the main thread only; elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)
