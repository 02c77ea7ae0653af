"""How fast trainings are: as measured on finished runs of one profile, or as its file states by others' account.

Rates are device-seconds per megapixel, of one GPU or of one CPU process, so that runs on different numbers of devices
can be compared. Time is taken to grow with the number of pixels (images times the square of the short side), which
holds for convolutions and, roughly, for the rest.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from detector.runs.job import Backbone, EvalJob, TrainJob
from detector.runs.record import Record
from detector.storage.shown import one_line
from harness.registry.declarations import Profile, StatedSpeed

Basis = Literal["measured", "extrapolated", "stated", "unknown"]
Unit = Literal["GPU", "CPU"]


@dataclass(frozen=True)
class Figure:
    """A number with where it comes from. ``value``: None where it is unknown.

    ``runs``: those it was measured on; 0 for a measured one that is a line of speeds.yaml.

    ``rules``: for an extrapolated one, what was done to the measurement that ``source`` names, a sentence each.
    """

    value: float | None
    basis: Basis
    runs: int = 0
    source: str = ""
    rules: tuple[str, ...] = ()

    def times(self, factor: float | None) -> Figure:
        """Scaled; unknown where the factor is. Zero times an unknown is zero."""
        if factor == 0:
            return replace(self, value=0.0)
        if self.value is None or factor is None:
            return UNKNOWN
        return replace(self, value=self.value * factor)

    def whole_text(self) -> str:
        """The basis in words, with the rules."""
        return "; ".join((self.text(), *self.rules))

    def text(self) -> str:
        """The basis in words, without the rules; on one line, whatever a record calls its device."""
        return one_line(self._words())

    def _words(self) -> str:
        if self.basis == "measured" and self.runs == 0:
            return f"measured, {self.source}"
        if self.basis == "measured":
            return f"measured ({self.runs} run{'s' if self.runs != 1 else ''}, {self.source})"
        if self.basis == "extrapolated":
            return f"extrapolated from {self.source}"
        return f"stated ({self.source})" if self.basis == "stated" else "unknown"


UNKNOWN = Figure(None, "unknown")


@dataclass(frozen=True)
class Speed:
    """Device-seconds per megapixel of training and of testing. ``devices``: how many each run has."""

    unit: Unit
    devices: int
    training: Figure
    testing: Figure


def unit_of(record: Record) -> Unit:
    """What a run was on."""
    return "CPU" if record.environment.get("device", "cpu").startswith("cpu") else "GPU"


def gpu_of(record: Record) -> str | None:
    """The name of the GPU that a run was on, as its driver gave it; None for a run on the CPU."""
    found = re.fullmatch(r"cuda \((.+)\)", record.environment.get("device", ""))
    return found[1] if found else None


def processes_of(record: Record) -> int:
    """One per GPU, or those on the CPU."""
    return int(record.environment.get("processes", "1"))


def measured(records: Sequence[Record]) -> Speed:
    """Of runs of one kind: medians, so that a run on a busy machine does not distort them."""
    devices = ", ".join(sorted({record.environment.get("device", "unnamed device") for record in records}))
    training: dict[str, float] = {}  # a training with two tests has two records
    testing: list[float] = []
    for record in records:
        per_image = seconds_per_image(record)
        if per_image is not None:
            training[record.train_id] = per_image / train_megapixels(record.job.train)
        if record.eval_seconds > 0 and record.test_split.images:  # 0: the answer of the evaluation server
            pixels = record.test_split.images * test_megapixels(record.job)
            testing.append(record.eval_seconds * processes_of(record) / pixels)
    return Speed(
        unit=unit_of(records[0]),
        devices=statistics.mode(processes_of(record) for record in records),
        training=_median(list(training.values()), devices),
        testing=_median(testing, devices),
    )


def seconds_per_image(record: Record) -> float | None:
    """Device-seconds per training image; None where the weights were trained elsewhere."""
    job = record.job.train
    if record.train_seconds <= 0:
        return None
    return record.train_seconds * processes_of(record) / (job.schedule.iterations * job.batch.images)


def _median(values: list[float], source: str) -> Figure:
    return Figure(statistics.median(values), "measured", len(values), source) if values else UNKNOWN


def stated(profile: Profile, backbone: Backbone) -> Speed:
    """What the profile's file says, for as many devices as a run of it takes."""
    given, wanted = profile.stated_speed, profile.execution.gpus_per_run
    if given is None:
        return Speed("CPU" if wanted == 0 else "GPU", 1, UNKNOWN, UNKNOWN)
    return Speed(
        unit="GPU",
        devices=given.gpus if wanted == "all" else max(1, wanted),
        training=_quoted(given, given.seconds_per_iteration.get(backbone), given.gpus / given.images),
        testing=_quoted(given, given.seconds_per_test_image.get(backbone), 1.0),
    )


def _quoted(given: StatedSpeed, seconds: float | None, factor: float) -> Figure:
    """Device-seconds per megapixel, from seconds per image."""
    if seconds is None:
        return UNKNOWN
    return Figure(seconds * factor / megapixels(given.short_side), "stated", source=given.source)


def megapixels(short_side: int) -> float:
    """The square of the short side, which stands for an image's size."""
    return short_side**2 / 1e6


def train_megapixels(job: TrainJob) -> float:
    """Of a training image, averaged over the sides that are drawn."""
    return statistics.fmean(megapixels(side) for side in job.augmentation.short_sides)


def test_megapixels(job: EvalJob) -> float:
    """Of a test image, all its scales together, mirrored ones too."""
    return sum(megapixels(side) for side in job.test.short_sides) * (2 if job.test.flip else 1)
