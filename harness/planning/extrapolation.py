"""What trainings take on GPUs that were named: measured there, or extrapolated from the measurement that is nearest.

A measurement is a finished run's record or a training in speeds.yaml. What a training takes is split in two where the
step alone was measured too (the same images of one shape over and over): the step, which the GPU limits, and the rest,
which launching, choosing algorithms and waiting for data take. The step is scaled; the rest stays as it is, image by
image. Where no step was measured all of the time is taken to be the step's. The rules, and why each is as it is:

- size: with the pixels of an image.
- precision: by the steps that were measured in both, else by the peak rates.
- GPU: by the larger of the two ratios of peak rate and memory bandwidth, so that the scarcer of the two counts.
- backbone: step and rest alike, by the ratio of what the profile states for both.
- number of GPUs: as many GPU-seconds in all, so that exchanging gradients is taken to cost nothing.
- groups per pass: taken not to matter, since the groups of a real training rarely have one shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from detector.errors import UsageError
from detector.runs.job import TrainJob
from detector.runs.record import Record
from harness.machine import processes_for
from harness.planning.gpus import GpuSet
from harness.planning.rates import UNKNOWN, Figure, Speed, gpu_of, measured, stated, train_megapixels
from harness.planning.speeds import Start, kind_of, same_gpu, starts, step_of
from harness.registry.declarations import Profile
from harness.registry.speeds import SpeedsFile

# Precisions that move as many bytes are closer to each other than to the rest.
_WIDE = ("fp32", "tf32")


def speed_on(gpus: GpuSet, job: TrainJob, profile: Profile, records: Sequence[Record], speeds: SpeedsFile) -> Speed:
    """The speed of ``job`` on those GPUs: measured, else extrapolated, else as the profile states it for other GPUs.

    records: of every profile. Raises UsageError for a profile that runs on the CPU, and for a precision that the GPU
    does not have.
    """
    wanted = profile.execution.gpus_per_run
    if wanted == 0:
        raise UsageError(f"--gpus: runs of profile {profile.name} are on the CPU. Leave --gpus out.")
    if gpus.kind is not None and job.precision not in gpus.kind.tflops:
        raise UsageError(
            f"--gpus: {gpus.name} has no {job.precision}, in which profile {profile.name} trains. "
            f"It has {', '.join(gpus.kind.tflops)}: --set precision=... is another experiment."
        )
    per_run = gpus.count if wanted == "all" else min(wanted, gpus.count)
    devices = processes_for(job.batch.images // job.batch.images_per_group, per_run)
    there = [record for record in records if same_gpu(gpu_of(record), gpus.name, speeds)]
    alike = [record for record in there if record.profile == profile.name and kind_of(record.job.train) == kind_of(job)]
    known = measured(alike) if alike else Speed("GPU", devices, UNKNOWN, UNKNOWN)
    training = _on_so_many(known.training, known.devices, devices)
    if training.value is None:
        training = _extrapolated(gpus, job, profile, starts(records, speeds), speeds, devices)
    quoted = stated(profile, job.model.backbone)
    if training.value is None:
        training = quoted.training
    testing = next((figure for figure in (known.testing, quoted.testing) if figure.value is not None), UNKNOWN)
    return Speed("GPU", per_run, training, testing if testing.value is not None else _as_training(training))


def _on_so_many(figure: Figure, before: int, devices: int) -> Figure:
    return figure if before == devices else replace(figure, rules=(_more_gpus(before, devices),))


def _as_training(training: Figure) -> Figure:
    """A test image, where nothing is known of it: no more than a training image of that size."""
    if training.value is None:
        return UNKNOWN
    rule = "a test image is taken to cost what a training image of that size does"
    return replace(training, basis="extrapolated", rules=(*training.rules, rule))


def _extrapolated(
    gpus: GpuSet, job: TrainJob, profile: Profile, found: Sequence[Start], speeds: SpeedsFile, devices: int
) -> Figure:
    """From the nearest measurement that leads there; unknown where none does."""
    for start in sorted(found, key=lambda start: _distance(start, gpus, job, speeds, devices)):
        figure = _from(start, gpus, job, profile, speeds, devices)
        if figure is not None:
            return figure
    return UNKNOWN


def _distance(
    start: Start, gpus: GpuSet, job: TrainJob, speeds: SpeedsFile, devices: int
) -> tuple[bool, bool, int, bool, float, float]:
    """What differs, the weightiest first: GPU, backbone, precision, no run of ours, size, number of GPUs."""
    alike = (start.precision in _WIDE) == (job.precision in _WIDE)
    return (
        not same_gpu(start.gpu, gpus.name, speeds),
        start.backbone != job.model.backbone,
        0 if start.precision == job.precision else 1 if alike else 2,
        start.runs == 0,
        abs(math.log(start.megapixels / train_megapixels(job))),
        abs(math.log(start.gpus / devices)),
    )


def _from(
    start: Start, gpus: GpuSet, job: TrainJob, profile: Profile, speeds: SpeedsFile, devices: int
) -> Figure | None:
    """One measurement carried over to other GPUs, sizes, precisions and backbones; None where a ratio is not known."""
    step = start.seconds if start.step is None else min(start.step, start.seconds)
    rest = start.seconds - step
    rules = []
    for factor, rule in (
        _by_precision(start, job, speeds),
        _by_pixels(start, job),
        _by_gpu(start, gpus, job, speeds),
    ):
        if factor is None:
            return None
        step *= factor
        rules += [rule] if rule else []
    networks, rule = _by_backbone(start, job, profile)
    if networks is None:
        return None
    rules += [rule] if rule else []
    if start.gpus != devices:
        rules.append(_more_gpus(start.gpus, devices))
    if not rules and start.runs == 0:
        return Figure(start.seconds / train_megapixels(job), "measured", source=start.words)
    an_iteration = job.batch.images / devices
    if rest > 0:
        rules.append(
            f"beyond the step {rest * networks * an_iteration:.3f} s per iteration for launching, choosing algorithms "
            f"and waiting for data, as measured; the step alone would take {step * networks * an_iteration:.3f} s"
        )
    value = (step + rest) * networks / train_megapixels(job)
    return Figure(value, "extrapolated", start.runs, start.words, tuple(rules))


def _by_precision(start: Start, job: TrainJob, speeds: SpeedsFile) -> tuple[float | None, str]:
    if start.precision == job.precision:
        return 1.0, ""
    if start.step is not None and start.groups is not None:
        what = (start.backbone, job.precision, start.groups, start.megapixels)
        other = step_of(speeds, start.gpu, *what)
        if other is not None:
            factor = other / start.step
            return factor, f"{start.precision} to {job.precision}: the step x {factor:.2f}, as measured for the step"
    kind = speeds.kind(start.gpu)
    if kind is None or not {start.precision, job.precision} <= kind.tflops.keys():
        return None, ""
    factor = kind.tflops[start.precision] / kind.tflops[job.precision]
    return factor, f"{start.precision} to {job.precision}: the step x {factor:.2f}, by the peak rates of {kind.name}"


def _by_pixels(start: Start, job: TrainJob) -> tuple[float, str]:
    factor = train_megapixels(job) / start.megapixels
    if math.isclose(factor, 1.0):
        return 1.0, ""
    return factor, f"image size: the step x {factor:.2f}, with the pixels"


def _by_gpu(start: Start, gpus: GpuSet, job: TrainJob, speeds: SpeedsFile) -> tuple[float | None, str]:
    if same_gpu(start.gpu, gpus.name, speeds):
        return 1.0, ""
    before, after = speeds.kind(start.gpu), gpus.kind
    if before is None or after is None or job.precision not in before.tflops:
        return None, ""
    rate = before.tflops[job.precision] / after.tflops[job.precision]
    bandwidth = before.terabytes_per_second / after.terabytes_per_second
    factor, which = max((rate, f"peak rates in {job.precision}"), (bandwidth, "memory bandwidths"))
    return (
        factor,
        f"{before.name} to {after.name}: the step x {factor:.2f}, the larger ratio, of {which} ({after.source})",
    )


def _by_backbone(start: Start, job: TrainJob, profile: Profile) -> tuple[float | None, str]:
    backbone = job.model.backbone
    if start.backbone == backbone:
        return 1.0, ""
    given = profile.stated_speed
    if given is None or not {start.backbone, backbone} <= given.seconds_per_iteration.keys():
        return None, ""
    factor = given.seconds_per_iteration[backbone] / given.seconds_per_iteration[start.backbone]
    return factor, f"{start.backbone} to {backbone}: x {factor:.2f}, as in {given.source}"


def _more_gpus(before: int, after: int) -> str:
    return (
        f"measured on {before} GPU{'s' if before > 1 else ''}, wanted on {after}: as many GPU-seconds in all, so "
        "exchanging gradients is taken to cost nothing"
    )
