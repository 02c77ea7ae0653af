"""A signal asks a run to stop; the run obeys where nothing is lost. Free of torch."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
SIGNAL_SPREAD_SECONDS = 20.0  # the processes of a job may get a signal this far apart


class StopRequested(Exception):
    """A signal asked the run to stop; whatever needs saving is saved."""


class StopFlag:
    """Set by a stop signal. The training looks at it between its steps; inside ``at_once`` the signal
    itself raises StopRequested."""

    def __init__(self) -> None:
        self.first: int | None = None
        self._raises: tuple[signal.Signals, ...] = ()
        for number in STOP_SIGNALS:
            signal.signal(number, self._set)
        # A launcher may have blocked a signal during the imports; one that came then arrives here.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def __call__(self) -> bool:
        """Whether a stop was asked for."""
        return self.first is not None

    @contextmanager
    def at_once(self, signals: tuple[signal.Signals, ...] = STOP_SIGNALS) -> Iterator[None]:
        """For work that needs no saving: one of ``signals`` raises StopRequested at once, or has come before."""
        if self.first in signals:
            raise StopRequested("stopped before the evaluation")
        self._raises = signals
        try:
            yield
        finally:
            self._raises = ()

    def wait_for_first(self) -> int | None:
        """The first signal; waits a little for it where another process of the run had it before us."""
        deadline = time.monotonic() + SIGNAL_SPREAD_SECONDS
        while self.first is None and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.first

    def _set(self, number: int, frame: Any) -> None:
        before = self.first
        self.first = number if before is None else before
        # A second signal must not break into the handling of the first.
        if number in self._raises and (before is None or before not in self._raises):
            raise StopRequested("stopped in an evaluation; the weights are saved")
