"""Signals while runs go on: SIGTERM means the same as Ctrl-C, and Ctrl-C reaches the launcher only."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

STOP_SECONDS = 60.0  # for runs to save their state after Ctrl-C; a slower one still ends by itself


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Ctrl-C does not end processes that are started here, although a terminal sends it to children too.

    The launcher asks them to save and end (``stop``), which takes them longer.
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


def stop(jobs: Sequence[Any]) -> None:
    """Ask our runs to save and end, and wait for them for up to ``STOP_SECONDS``. jobs: as for ``terminate``.

    submitit's own ``cancel`` kills after one second, too soon to save a large model. Its controller passes SIGTERM on.
    """
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        if not terminate(jobs):
            return
        time.sleep(0.5)


def terminate(jobs: Sequence[Any]) -> bool:
    """Send SIGTERM to our runs that live; returns whether there are any. A run that just starts may miss one signal.

    jobs: submitit's; None for the run of another command.
    """
    # Not ``job.done()``, which looks for a file: the storage may be away.
    living = [job for job in jobs if job is not None and job.get_info()["jobState"] == "RUNNING"]
    for job in living:
        os.kill(int(job.job_id), signal.SIGTERM)
    return bool(living)
