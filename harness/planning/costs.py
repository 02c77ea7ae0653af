"""What the runs of a plan cost: device time, wall time, disk, and requeues under a wall-time limit.

Times come from finished runs of the same profile, backbone and precision (measured); else from other runs on a GPU, or
speeds.yaml, carried over to this profile (extrapolated, ``harness.planning.extrapolation``); else from the figures that
the profile quotes (stated). Else they are unknown, which never counts as 0.
"""

from __future__ import annotations

import heapq
import math
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from detector.errors import UsageError
from detector.runs.folder import RunDir
from detector.runs.job import AnnotatedFolder, CocoRelease, EvalJob, Shapes, TrainJob
from detector.runs.record import Record
from harness.machine import processes_for
from harness.planning.extrapolation import speed_on
from harness.planning.gpus import GpuSet, gpu_set
from harness.planning.network_size import NetworkSize, network_size
from harness.planning.plan import Plan
from harness.planning.rates import (
    Figure,
    Speed,
    Unit,
    gpu_of,
    measured,
    processes_of,
    stated,
    test_megapixels,
    train_megapixels,
    unit_of,
)
from harness.planning.speeds import kind_of
from harness.registry.declarations import Profile
from harness.registry.speeds import SpeedsFile
from harness.store.records import Store

# Stated, not measured: imports, the annotations and the newest checkpoint, before the first step of every start.
START_UP_SECONDS = 180.0
COCO_CLASSES = 80

_LONGEST = 36_500 * 86_400.0  # a century
_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


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
    """The speed of each kind of training at one profile, each looked up once.

    records: of every profile. gpus: the GPUs that were asked for; None for those that finished runs had.
    """

    def __init__(
        self,
        profile: Profile,
        records: Iterable[Record],
        speeds: SpeedsFile | None = None,
        gpus: GpuSet | None = None,
    ) -> None:
        self.profile = profile
        self.everywhere = list(records)
        self.records = [record for record in self.everywhere if record.profile == profile.name]
        self.speeds = speeds
        self.gpus = gpus
        self._known: dict[tuple[object, ...], Speed] = {}

    def speed(self, job: TrainJob) -> Speed:
        """As measured on runs of this kind; what was not measured, extrapolated or as the profile states it."""
        key = (*kind_of(job), job.augmentation.short_sides, job.batch)
        if key not in self._known:
            self._known[key] = self._look_up(job)
        return self._known[key]

    @cached_property
    def test_images(self) -> int | None:
        """Images of the test split as the profile's records found it, for a folder that is yet to be named."""
        return next((record.test_split.images for record in self.records if record.job.split is None), None)

    def _look_up(self, job: TrainJob) -> Speed:
        if self.gpus is not None:
            return self._on(self.gpus, job)
        said = stated(self.profile, job.model.backbone)
        same = [record for record in self.records if kind_of(record.job.train) == kind_of(job)]
        # Where some runs had a GPU and others none, the next one is taken to have a GPU.
        with_gpu = [record for record in same if unit_of(record) == "GPU"]
        chosen = with_gpu or same
        if not chosen:
            return self._on_the_usual_gpus(job) or said
        speed = measured(chosen)
        if speed.unit != said.unit:
            return speed
        return replace(
            speed,
            training=speed.training if speed.training.value else said.training,
            testing=speed.testing if speed.testing.value else said.testing,
        )

    def _on(self, gpus: GpuSet, job: TrainJob) -> Speed:
        return speed_on(gpus, job, self.profile, self.everywhere, self.speeds or SpeedsFile())

    def _on_the_usual_gpus(self, job: TrainJob) -> Speed | None:
        """On the GPUs that finished runs of other kinds had; None where nothing leads from those to this one."""
        wanted = self.profile.execution.gpus_per_run
        names = [name for name in map(gpu_of, self.everywhere) if name is not None]
        if wanted == 0 or not names or self.speeds is None:
            return None
        name = statistics.mode(names)
        count = statistics.mode(processes_of(record) for record in self.everywhere if gpu_of(record) == name)
        gpus = gpu_set(count if wanted == "all" else wanted, name, self.speeds, self.everywhere)
        if gpus.kind is not None and job.precision not in gpus.kind.tflops:
            return None
        speed = self._on(gpus, job)
        return speed if speed.training.basis == "extrapolated" else None


def run_cost(rates: Rates, job: TrainJob, evaluations: Sequence[EvalJob], run: RunDir) -> RunCost:
    """What is left of one training and of the given evaluations, by the checkpoints and records in its folder."""
    speed = rates.speed(job)
    devices = processes_for(job.batch.images // job.batch.images_per_group, speed.devices)
    to_test = sum(test_megapixels(item) for item in evaluations if not run.record(item.id).exists())
    iterations = _iterations_left(run, job) if to_test else 0
    an_iteration = speed.training.times(job.batch.images * train_megapixels(job) / devices)
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


def plan_costs(plan: Plan, rates: Rates, store: Store, train_ids: Iterable[str]) -> list[RunCost]:
    """The cost of each of ``train_ids``. Raises RecordError for a record that is damaged."""
    return [
        run_cost(rates, plan.trainings[train_id], plan.evaluations[train_id], store.run_dir(train_id))
        for train_id in train_ids
    ]


def wall_seconds_on(costs: Sequence[RunCost], gpus: int) -> float | None:
    """Until the last run ends, as many side by side as fit on so many GPUs, in order; None where one is unknown."""
    times = [cost.wall_seconds for cost in costs]
    if not costs or None in times:
        return None
    slots = [0.0] * max(1, gpus // max(cost.devices for cost in costs))
    for seconds in times:
        heapq.heapreplace(slots, slots[0] + (seconds or 0.0))
    return max(slots)


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
    if "".join(number + unit for number, unit in parts) != text or not 0 < seconds <= _LONGEST:
        raise UsageError(f"{option} takes a time such as 4h, 90min or 1d12h; got {text!r}.")
    return seconds


def parse_wall_time(text: str) -> float:
    """Seconds of a wall-time limit. Raises UsageError where a start alone would fill it."""
    seconds = parse_duration(text, "--wall-time")
    if seconds <= START_UP_SECONDS:
        raise UsageError(f"--wall-time {text}: every start takes about {START_UP_SECONDS:.0f} s before its first step.")
    return seconds
