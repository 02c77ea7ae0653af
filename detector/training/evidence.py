"""What a training's log shows: its curves for the record, and its health while it runs and at its end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from detector.data.coco.index import CocoIndex
from detector.errors import RecordError
from detector.runs.assignment import WORKER_LOG
from detector.runs.findings import MOST_POINTS, Curves, Health, logged
from detector.runs.folder import RunDir
from detector.runs.job import TrainJob
from detector.sanity.anchor_counts import dead_levels, loss_of_equal_scores
from detector.sanity.health import Line, numbers, training_health
from detector.storage.reading import LARGE, read_bytes

logger = logging.getLogger(WORKER_LOG)

FIRST_TENTH = 5  # of the schedule, after which a training's health is judged: before, the rate may still rise
LOSSES = ("classification", "bbox_regression", "loss")
LOSS_DIGITS, OTHER_DIGITS = 4, 3  # of a curve's values: more show nothing
COUNTED_IMAGES = 32  # whose anchors are counted for the loss of scores that are all alike
SAMPLED_IMAGES = 500  # in which a level without positive anchors is looked for


class HealthWatch:
    """Looks at a training's log after each tenth of its second half, and says each thing once."""

    def __init__(self, run: RunDir, job: TrainJob, index: CocoIndex) -> None:
        """index: of the images that it is trained on."""
        self.run, self.job, self.index = run, job, index
        self.found: tuple[Health, ...] = ()
        self._tenth = FIRST_TENTH
        self._said: set[str] = set()

    def look(self, iteration: int) -> tuple[str, ...]:
        """After ``iteration`` steps: what is wrong now, in words."""
        tenth = 10 * iteration // self.job.schedule.iterations
        if tenth > self._tenth:
            self._tenth = tenth
            self.say(self._by_log())
        return in_words(self.found)

    def finish(self) -> None:
        """At the end: look once more, at the levels of the pyramid too."""
        self.say((*self._by_log(), *_dead_levels(self.job, self.index)))

    def _by_log(self) -> tuple[Health, ...]:
        untrained = loss_of_equal_scores(self.job, self.index, range(min(COUNTED_IMAGES, self.index.num_images)))
        return training_health(log_lines(self.run.metrics), self.job, untrained)

    def say(self, found: tuple[Health, ...]) -> None:
        """Log what is new of it."""
        self.found = found
        for health in found:
            if health.name not in self._said:
                logger.warning("%s: %s", health.name, health.message)
        self._said |= {health.name for health in found}


def _dead_levels(job: TrainJob, index: CocoIndex) -> tuple[Health, ...]:
    dead, looked = dead_levels(job, index, range(min(SAMPLED_IMAGES, index.num_images)))
    names = ", ".join(f"P{level}" for level in dead)
    message = f"no anchor of {names} is positive in the first {looked} images: the anchors are too large or too small"
    return (Health(name="dead level", message=message),) if dead else ()


def in_words(found: Sequence[Health]) -> tuple[str, ...]:
    """As a heartbeat has it."""
    return tuple(f"{health.name}: {health.message}" for health in found)


def log_lines(metrics: Path) -> list[dict[str, float]]:
    """The numbers of a training's log, line by line; without a line that a crash or a full disk spoilt."""
    try:
        lines = read_bytes(metrics, most=LARGE).split(b"\n")
    except RecordError:
        return []
    return [numbers(found) for line in lines if (found := logged(line)) is not None]


def curves_of(lines: Sequence[Line]) -> Curves | None:
    """At most ``MOST_POINTS`` lines, evenly spaced, the first and the last included; None of no line."""
    if not lines:
        return None
    count = min(MOST_POINTS, len(lines))
    kept = [lines[round(i * (len(lines) - 1) / max(1, count - 1))] for i in range(count)]
    columns = [name for name in dict.fromkeys(name for line in kept for name in line) if name != "iteration"]
    return Curves(
        iterations=tuple(int(line["iteration"]) for line in kept),
        values={name: tuple(_rounded(name, line.get(name)) for line in kept) for name in columns},
    )


def _rounded(name: str, value: float | None) -> float | None:
    digits = LOSS_DIGITS if name in LOSSES else OTHER_DIGITS
    return None if value is None else float(f"{value:.{digits}g}")
