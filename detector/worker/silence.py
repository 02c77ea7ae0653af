"""How long a run may go without getting ahead before it counts as hung. Free of torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from detector.errors import UsageError
from detector.runs.status import ALIVE, Phase

# More than any wait that ends by itself and says why: five minutes for storage, ten for a loader or another process.
OWN_LIMITS_SECONDS: Final = 660.0
# torch is read over a slow file server, COCO is indexed, weights come, the network is compiled; and rank 0 waits up to
# half an hour for the others.
START_SECONDS: Final = 2100.0
# For the processes of a run that has said its end. Most leave within a second; one that hangs there holds its node.
END_SECONDS: Final = 300.0
SLOWER: Final = 10.0  # so many times the longest of the last steps ahead: a shared machine may become slow
SCORING_SECONDS: Final = (
    0.1  # per image; COCO's 5,000 take a minute or two on one core, and nothing tells how far it is
)
STEPS_KNOWN: Final = 3  # in training; before, each may compile another shape
STEPS_KEPT: Final = 20  # of which the longest counts


def silence(phase: Phase, steps: Sequence[float], *, images: int = 0, least: float | None = None) -> float:
    """Seconds without getting ahead after which a run in this phase counts as hung.

    For one that has said its end: after which its processes do, where they still live.

    steps: seconds between the last times that it got ahead in this phase of this start, the newest last. images: of
    the evaluation that is under way. least: in place of what every run is given; the run's own pace still counts.
    """
    if phase not in ALIVE:
        return END_SECONDS
    known = phase == "evaluating" or (phase == "training" and len(steps) >= STEPS_KNOWN)
    given = (OWN_LIMITS_SECONDS if known else START_SECONDS) if least is None else least
    return given + SLOWER * max(steps[-STEPS_KEPT:], default=0.0) + SCORING_SECONDS * images


def least_silence() -> float | None:
    """The value of HARNESS_SILENCE_SECONDS; None where it is not set. Raises UsageError where it is no number."""
    text = os.environ.get("HARNESS_SILENCE_SECONDS", "")
    try:
        seconds = float(text) if text else None
    except ValueError:
        seconds = -1.0
    if seconds is not None and not 0 < seconds < float("inf"):
        raise UsageError(f"HARNESS_SILENCE_SECONDS is {text!r}; a number of seconds above 0 is needed.")
    return seconds


class Pulse:
    """When a run last got ahead, and how long it may be silent from there."""

    def __init__(self) -> None:
        self.images = 0  # of the evaluation that is under way
        self._phase: Phase = "starting"
        self._steps: list[float] = []
        self._since: float | None = None

    def ahead(self, phase: Phase, now: float) -> float:
        """The run got ahead, or entered a phase. now: of a clock that only counts on. Returns its silence."""
        if phase != self._phase:
            self._phase, self._steps = phase, []
        elif self._since is not None:
            self._steps = [*self._steps[1 - STEPS_KEPT :], now - self._since]
        self._since = now
        return self.silence()

    def silence(self) -> float:
        """Of now. Raises UsageError for a living run where HARNESS_SILENCE_SECONDS is no number."""
        least = least_silence() if self._phase in ALIVE else None
        return silence(self._phase, self._steps, images=self.images, least=least)
