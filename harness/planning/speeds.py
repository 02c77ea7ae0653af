"""Measured speeds: those that can be extrapolated from, and a new one put into a speeds.yaml."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from msgspec import to_builtins

from detector.errors import UsageError
from detector.runs.job import Backbone, Precision, TrainJob
from detector.runs.record import Record
from detector.storage.files import write_atomic
from detector.storage.reading import read_text
from harness.planning.rates import gpu_of, megapixels, processes_of, seconds_per_image, train_megapixels
from harness.registry.speeds import MeasuredSpeed, SpeedsFile, plain_name
from harness.registry.yaml_files import convert, read

# Of a shorter training, starting up and the choice of algorithms take a part that another one does not pay again.
LEAST_ITERATIONS = 1_000


@dataclass(frozen=True)
class Start:
    """A measurement to extrapolate from: GPU-seconds per image of ``megapixels``, and how it came about.

    ``step``: the part of them that the step alone takes; None where that was not measured. ``groups``: per forward
    pass; None where it is not known. ``runs``: finished runs behind it; 0 for a line of speeds.yaml.
    """

    gpu: str
    gpus: int
    backbone: Backbone
    precision: Precision
    megapixels: float
    seconds: float
    words: str
    step: float | None = None
    groups: int | None = None
    runs: int = 0


def kind_of(job: TrainJob) -> tuple[Backbone, Precision]:
    """What runs must have in common for their times to be compared."""
    return job.model.backbone, job.precision


def same_gpu(one: str | None, other: str, speeds: SpeedsFile) -> bool:
    """Whether two names are of one kind of GPU."""
    if one is None:
        return False
    kind = speeds.kind(one)
    return plain_name(one) == plain_name(other) or (kind is not None and kind == speeds.kind(other))


def starts(records: Iterable[Record], speeds: SpeedsFile) -> list[Start]:
    """Everything that can be extrapolated from: finished runs, then the trainings of speeds.yaml."""
    runs: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        train = record.job.train
        if gpu_of(record) and seconds_per_image(record) and train.schedule.iterations >= LEAST_ITERATIONS:
            key = (
                gpu_of(record),
                processes_of(record),
                record.profile,
                *kind_of(train),
                train.augmentation.short_sides,
            )
            runs.setdefault(key, []).append(record)
    measured_here = [_start_of_runs(same) for same in runs.values()]
    return [*measured_here, *(_start_of_row(row, speeds) for row in speeds.speeds if row.of == "training")]


def _start_of_runs(same: Sequence[Record]) -> Start:
    """Runs of one kind, each once. Their groups per pass are not recorded."""
    job, gpu = same[0].job.train, gpu_of(same[0])
    found = {record.train_id: seconds_per_image(record) or 0.0 for record in same}
    seconds, gpus = statistics.median(found.values()), processes_of(same[0])
    side = _sides(job.augmentation.short_sides)
    an_iteration = seconds * job.batch.images / gpus
    assert gpu is not None
    return Start(
        gpu=gpu,
        gpus=gpus,
        backbone=job.model.backbone,
        precision=job.precision,
        megapixels=train_megapixels(job),
        seconds=seconds,
        words=f"{len(found)} run{'s' if len(found) != 1 else ''} of profile {same[0].profile}: {an_iteration:.3g} s "
        f"per iteration of {job.batch.images} images of {side} px on {gpus} x {gpu}, {job.model.backbone}, "
        f"{job.precision}",
        runs=len(found),
    )


def _sides(short_sides: Sequence[int]) -> str:
    low, high = min(short_sides), max(short_sides)
    return str(low) if low == high else f"{low} to {high}"


def _start_of_row(row: MeasuredSpeed, speeds: SpeedsFile) -> Start:
    seen = f" ({row.seen[0]:g} to {row.seen[1]:g} seen)" if row.seen else ""
    size = megapixels(row.short_side)
    return Start(
        gpu=row.gpu,
        gpus=row.gpus,
        backbone=row.backbone,
        precision=row.precision,
        megapixels=size,
        seconds=row.gpu_seconds_per_image,
        words=f"{row.seconds_per_iteration:.3g} s per iteration{seen} of {row.images} images of {row.short_side} px on "
        f"{row.gpus} x {row.gpu}, {row.backbone}, {row.precision} ({row.source})",
        step=step_of(speeds, row.gpu, row.backbone, row.precision, row.groups_per_forward, size),
        groups=row.groups_per_forward,
    )


def step_of(speeds: SpeedsFile, gpu: str, backbone: str, precision: str, groups: int, size: float) -> float | None:
    """GPU-seconds per image of ``size`` megapixels that the step alone takes; None where it was not measured.

    With the most groups per pass that were measured, up to ``groups``.
    """
    found = [
        row
        for row in speeds.speeds
        if row.of == "step" and (row.backbone, row.precision) == (backbone, precision)
        if row.groups_per_forward <= groups and same_gpu(row.gpu, gpu, speeds)
    ]
    if not found:
        return None
    row = max(found, key=lambda row: (row.groups_per_forward, -abs(math.log(megapixels(row.short_side) / size))))
    return row.gpu_seconds_per_image * size / megapixels(row.short_side)


def add_speed(path: Path, *measured: MeasuredSpeed) -> None:
    """Put measurements into a speeds.yaml, in the place of earlier ones of the same kind; a missing file is written.

    The comment at the head of the file stays. Raises RegistryError for a file that is wrong.
    """
    before = convert(read(path), SpeedsFile) if path.exists() else SpeedsFile()
    lines = read_text(path, raises=UsageError).splitlines(keepends=True) if path.exists() else []
    head = []
    for line in lines:
        if not line.startswith("#"):
            break
        head.append(line)
    text = "".join(head) + speeds_text(before.merged(SpeedsFile(speeds=measured)))
    write_atomic(path, text.encode())


def speeds_text(speeds: SpeedsFile) -> str:
    """The file, one line for each GPU and each measurement."""
    parts: dict[str, tuple[Any, ...]] = {"gpus": speeds.gpus, "speeds": speeds.speeds}
    blocks = []
    for name, entries in parts.items():
        lines = [f"  - {_one_line(to_builtins(entry))}\n" for entry in entries]
        blocks += [f"{name}:\n", *lines] if lines else []
    return "".join(blocks)


def _one_line(entry: dict[str, Any]) -> str:
    given = {key: value for key, value in entry.items() if value is not None}
    return yaml.safe_dump(given, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True).strip()
