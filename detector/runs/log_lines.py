"""Lines of a run's log that other programs look for: written and found by the same text. Free of torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

from detector.runs.assignment import WORKER_LOG
from detector.runs.timing import StepTiming

LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
STARTED: Final = "training "  # the run's id follows
FINAL_AP: Final = "AP "  # the AP follows
_RESUMED = re.compile(r"resumed after iteration (\d+)\n")
_EVALUATED = re.compile(r": after iteration (\d+): AP (\d+\.?\d*(?:e-?\d+)?)$", re.MULTILINE)


def of_worker(level: Literal["INFO", "ERROR"], start: str = "") -> str:
    """How a line of the worker begins after its time, as ``LOG_FORMAT`` writes it. start: of the message."""
    return f" {level} {WORKER_LOG}: {start}"


def resumed_after(iteration: int) -> str:
    """What a start says that goes on from a checkpoint."""
    return f"resumed after iteration {iteration}"


def iteration_resumed(log: str) -> int | None:
    """The first iteration in ``log`` of which ``resumed_after`` was said; None where there is none."""
    found = _RESUMED.search(log)
    return int(found[1]) if found else None


def evaluated_after(iteration: int, ap: float | None) -> str:
    """What a training says of an evaluation on its way. ap: percent; None in processes that do not know it."""
    return f"after iteration {iteration}: AP {ap}"


def ap_by_iteration(log: str) -> dict[int, float]:
    """Iteration -> AP (percent) of the evaluations on a training's way; of one made twice, the later."""
    return {int(iteration): float(ap) for iteration, ap in _EVALUATED.findall(log)}


def window_text(
    iteration: int, iterations: int, losses: Mapping[str, float], *, rate: float, timing: StepTiming
) -> str:
    """What a training says of one window of its log: ``iteration 400/90000: loss 0.5341 (...), lr 0.01, ...``.

    losses: with their sum as ``loss``. rate: the learning rate.
    """
    parts = ", ".join(f"{name} {value:.4g}" for name, value in losses.items() if name != "loss")
    memory = "" if timing.peak_memory_gib is None else f", {timing.peak_memory_gib:.1f} GiB"
    left = (iterations - iteration) * timing.seconds_per_iteration
    return (
        f"iteration {iteration}/{iterations}: loss {losses['loss']:.4g} ({parts}), lr {rate:.3g}, "
        f"{timing.text()}{memory}, {_time_text(left)} left"
    )


def _time_text(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3.2 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def stopped_at(iteration: int, *, saved: bool) -> str:
    """What a run says that was asked to stop. saved: whether the state could be written."""
    return (
        f"stopped at iteration {iteration}; {'the state is saved' if saved else 'the last checkpoint before is kept'}"
    )


def stopped_waiting(what: str) -> str:
    """What a run says that was asked to stop while it waited for its storage. what: for which file."""
    return f"stopped while it waited for its disk ({what}); the last checkpoint before is kept"
