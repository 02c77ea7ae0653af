"""How a run is asked to stop: by a signal, heeded where nothing is lost. Free of torch."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


class StopRequested(Exception):
    """A signal asked the run to stop; whatever needs saving is saved."""


class StopFlag:
    """Set by a stop signal. The training looks at it between its steps; inside ``at_once`` the signal itself stops."""

    def __init__(self) -> None:
        self.wanted = False
        self._raises = False
        for number in STOP_SIGNALS:
            signal.signal(number, self._set)

    def __call__(self) -> bool:
        """Whether a stop was asked for."""
        return self.wanted

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """For work that needs no saving: the signal raises StopRequested where it finds us, or has found us before."""
        if self.wanted:
            raise StopRequested("stopped before the evaluation")
        self._raises = True
        try:
            yield
        finally:
            self._raises = False

    def _set(self, number: int, frame: Any) -> None:
        first, self.wanted = not self.wanted, True
        if first and self._raises:  # a second signal must not break into the handling of the first
            raise StopRequested("stopped in the evaluation, which will begin anew")
