"""What the runs of a plan cost: device time, wall time, disk, and requeues under a wall-time limit.

Times come from finished runs of the same profile, backbone and precision (measured), else from the figures that the
profile quotes (stated). Else they are unknown, which never counts as 0. Costs are device-seconds, of one GPU or of one
CPU process, so that runs on different numbers of devices can be compared. Time is taken to grow with the
number of pixels (images times the square of the short side), which holds for convolutions and, roughly, for the rest.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from detector.errors import UsageError
from detector.runs.folder import RunDir
from detector.runs.job import AnnotatedFolder, Backbone, CocoRelease, EvalJob, Shapes, TrainJob
from detector.runs.record import Record
from harness.machine import processes_for
from harness.planning.network_size import NetworkSize, network_size
from harness.planning.plan import Plan
from harness.registry.declarations import Profile, StatedSpeed
from harness.store.records import Store

# Stated, not measured: imports, the annotations and the newest checkpoint, before the first step of every start.
START_UP_SECONDS = 180.0
COCO_CLASSES = 80

Basis = Literal["measured", "stated", "unknown"]
Unit = Literal["GPU", "CPU"]
_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Figure:
    """A number with where it comes from. ``value``: None where it is unknown. ``runs``: those it was measured on."""

    value: float | None
    basis: Basis
    runs: int = 0
    source: str = ""

    def times(self, factor: float | None) -> Figure:
        """Scaled; unknown where the factor is. Zero times an unknown is zero."""
        if factor == 0:
            return replace(self, value=0.0)
        if self.value is None or factor is None:
            return UNKNOWN
        return replace(self, value=self.value * factor)

    def text(self) -> str:
        """The basis in words."""
        if self.basis == "measured":
            return f"measured ({self.runs} run{'s' if self.runs != 1 else ''}, {self.source})"
        return f"stated ({self.source})" if self.basis == "stated" else "unknown"


UNKNOWN = Figure(None, "unknown")


@dataclass(frozen=True)
class Speed:
    """Device-seconds per megapixel of training and of testing. ``devices``: how many each run had."""

    unit: Unit
    devices: int
    training: Figure
    testing: Figure


@dataclass(frozen=True)
class RunCost:
    """What is left to do of one training: seconds of wall time, and bytes on the disk.

    ``iterations``: those left. ``seconds_per_iteration``: of wall time, on ``devices`` devices.
    """

    train_id: str
    backbone: str
    unit: Unit
    devices: int
    iterations: int
    seconds_per_iteration: Figure
    train_seconds: Figure
    test_seconds: Figure
    size: NetworkSize

    @property
    def wall_seconds(self) -> float | None:
        """From the first step to the last record; None where a part is unknown."""
        if self.train_seconds.value is None or self.test_seconds.value is None:
            return None
        return self.train_seconds.value + self.test_seconds.value

    @property
    def device_hours(self) -> float | None:
        """GPU-hours, or hours of a CPU process."""
        seconds = self.wall_seconds
        return None if seconds is None else seconds * self.devices / 3600

    def requeues(self, wall_time: float) -> int | None:
        """Starts beyond the first within limits of ``wall_time`` seconds: ceil(T / (limit - start-up)) - 1."""
        seconds = self.wall_seconds
        return None if seconds is None else max(0, math.ceil(seconds / (wall_time - START_UP_SECONDS)) - 1)


class Rates:
    """The speed of each backbone and precision at one profile, each looked up once."""

    def __init__(self, profile: Profile, records: Iterable[Record]) -> None:
        self.profile = profile
        self.records = [record for record in records if record.profile == profile.name]
        self._known: dict[tuple[str, str], Speed] = {}

    def speed(self, job: TrainJob) -> Speed:
        """As measured on runs of this kind; what was not measured, as the profile states it."""
        key = (job.model.backbone, job.precision)
        if key not in self._known:
            self._known[key] = self._look_up(job)
        return self._known[key]

    @cached_property
    def test_images(self) -> int | None:
        """Images of the test split as the profile's records found it, for a folder that is yet to be named."""
        return next((record.test_split.images for record in self.records if record.job.split is None), None)

    def _look_up(self, job: TrainJob) -> Speed:
        stated = _stated(self.profile, job.model.backbone)
        same = [
            record
            for record in self.records
            if (record.job.train.model.backbone, record.job.train.precision) == (job.model.backbone, job.precision)
        ]
        # Where some runs had a GPU and others none, the next one is taken to have a GPU.
        with_gpu = [record for record in same if _unit(record) == "GPU"]
        chosen = with_gpu or same
        if not chosen:
            return stated
        speed = _measured(chosen)
        if speed.unit != stated.unit:
            return speed
        return replace(
            speed,
            training=speed.training if speed.training.value else stated.training,
            testing=speed.testing if speed.testing.value else stated.testing,
        )


def _unit(record: Record) -> Unit:
    return "CPU" if record.environment.get("device", "cpu").startswith("cpu") else "GPU"


def _measured(records: Sequence[Record]) -> Speed:
    """Medians, so that a run on a busy machine does not distort them."""
    processes = [int(record.environment.get("processes", "1")) for record in records]
    devices = ", ".join(sorted({record.environment.get("device", "unnamed device") for record in records}))
    training: dict[str, float] = {}  # a training with two tests has two records
    testing: list[float] = []
    for record, count in zip(records, processes, strict=True):
        job = record.job.train
        pixels = job.schedule.iterations * job.batch.images * _train_megapixels(job)
        if record.train_seconds > 0:  # 0: weights that were trained elsewhere
            training[record.train_id] = record.train_seconds * count / pixels
        if record.eval_seconds > 0 and record.test_split.images:  # 0: the answer of the evaluation server
            testing.append(record.eval_seconds * count / (record.test_split.images * _test_megapixels(record.job)))
    return Speed(
        unit=_unit(records[0]),
        devices=statistics.mode(processes),
        training=_median(list(training.values()), devices),
        testing=_median(testing, devices),
    )


def _median(values: list[float], source: str) -> Figure:
    return Figure(statistics.median(values), "measured", len(values), source) if values else UNKNOWN


def _stated(profile: Profile, backbone: Backbone) -> Speed:
    stated = profile.stated_speed
    if stated is None:
        return Speed("CPU" if profile.execution.gpus_per_run == 0 else "GPU", 1, UNKNOWN, UNKNOWN)
    return Speed(
        unit="GPU",
        devices=stated.gpus,
        training=_quoted(stated, stated.seconds_per_iteration.get(backbone), stated.gpus / stated.images),
        testing=_quoted(stated, stated.seconds_per_test_image.get(backbone), 1.0),
    )


def _quoted(stated: StatedSpeed, seconds: float | None, factor: float) -> Figure:
    """Device-seconds per megapixel, from seconds per image."""
    if seconds is None:
        return UNKNOWN
    return Figure(seconds * factor / _megapixels(stated.short_side), "stated", source=stated.source)


def _megapixels(short_side: int) -> float:
    return short_side**2 / 1e6


def _train_megapixels(job: TrainJob) -> float:
    """Of a training image, averaged over the sides that are drawn."""
    return statistics.fmean(_megapixels(side) for side in job.augmentation.short_sides)


def _test_megapixels(job: EvalJob) -> float:
    """Of a test image, all its scales together, mirrored ones too."""
    return sum(_megapixels(side) for side in job.test.short_sides) * (2 if job.test.flip else 1)


def run_cost(rates: Rates, job: TrainJob, evaluations: Sequence[EvalJob], run: RunDir) -> RunCost:
    """What is left of one training and of the given evaluations, by the checkpoints and records in its folder."""
    speed = rates.speed(job)
    devices = processes_for(job.batch.images // job.batch.images_per_group, speed.devices)
    to_test = sum(_test_megapixels(item) for item in evaluations if not run.record(item.id).exists())
    iterations = _iterations_left(run, job) if to_test else 0
    an_iteration = speed.training.times(job.batch.images * _train_megapixels(job) / devices)
    images = _test_images(job, rates)
    return RunCost(
        train_id=job.id,
        backbone=job.model.backbone,
        unit=speed.unit,
        devices=devices,
        iterations=iterations,
        seconds_per_iteration=an_iteration,
        train_seconds=an_iteration.times(iterations),
        test_seconds=speed.testing.times(0 if to_test == 0 else images and images * to_test / devices),
        size=network_size(job.model, _num_classes(job)),
    )


def plan_costs(plan: Plan, store: Store, train_ids: Iterable[str]) -> list[RunCost]:
    """The cost of each of ``train_ids``. Raises RecordError for a record that is damaged."""
    rates = Rates(plan.profile, store.records)
    return [
        run_cost(rates, plan.trainings[train_id], plan.evaluations[train_id], store.run_dir(train_id))
        for train_id in train_ids
    ]


def _iterations_left(run: RunDir, job: TrainJob) -> int:
    if run.final.exists():
        return 0
    done = max((int(path.stem) for path in run.checkpoints.glob("[0-9]*.pt")), default=0)
    return max(0, job.schedule.iterations - done)


def _test_images(job: TrainJob, rates: Rates) -> int | None:
    if isinstance(job.data, Shapes):
        return job.data.num_test
    if isinstance(job.data, AnnotatedFolder):
        return job.data.num_images or rates.test_images
    from detector.data.coco.releases import RELEASES  # takes numpy, which the other profiles need not wait for

    images, _ = RELEASES[job.data.release][job.data.test_split]
    return images


def _num_classes(job: TrainJob) -> int:
    """COCO's for a folder, whose classes are unknown before it is named."""
    if isinstance(job.data, (CocoRelease, AnnotatedFolder)):
        return COCO_CLASSES
    return job.data.num_classes


def parse_duration(text: str, option: str) -> float:
    """Seconds of ``4h``, ``90min``, ``1d12h`` or ``1.5h``. Raises UsageError for anything else, and for 0."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(min|[smhd])", text)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or seconds <= 0:
        raise UsageError(f"{option} takes a time such as 4h, 90min or 1d12h; got {text!r}.")
    return seconds


def parse_wall_time(text: str) -> float:
    """Seconds of a wall-time limit. Raises UsageError where a start alone would fill it."""
    seconds = parse_duration(text, "--wall-time")
    if seconds <= START_UP_SECONDS:
        raise UsageError(f"--wall-time {text}: every start takes about {START_UP_SECONDS:.0f} s before its first step.")
    return seconds
