"""Some real steps of a training under torch's profiler. Nothing of them is kept but the trace."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import torch
from torch.profiler import ProfilerActivity, profile, schedule

from detector.device.environment import CUBLAS_WORKSPACE
from detector.device.world import World, join_world
from detector.runs.assignment import Assignment
from detector.runs.folder import RunDir
from detector.runs.job import TrainJob
from detector.runs.timing import StepTiming
from detector.storage.files import write_atomic
from detector.training.train import Progress, train
from detector.worker.run import fresh_training, pace_of

PROFILER_STEPS = 1  # in which the profiler starts; not in the trace


class _Traced(Exception):
    """Enough steps were taken."""


@dataclass(frozen=True)
class Kernel:
    """One kind of work of the device: a GPU's kernel or copy, or a CPU's operator without those that it calls.

    share: of the time of all of them, 0..1. milliseconds, calls: per step.
    """

    name: str
    share: float
    milliseconds: float
    calls: float


@dataclass(frozen=True)
class Trace:
    """What the steps showed. timing: of the last steps before the profiler began, which slows a step down.

    milliseconds: of all kernels of a step together. kernels: the longest first.
    """

    device: str
    steps: int
    warmup: int
    timing: StepTiming
    milliseconds: float
    kernels: tuple[Kernel, ...]


def trace_training(assignment: Assignment, output: Path, *, steps: int, warmup: int) -> Trace:
    """Train ``warmup`` steps, then trace ``steps`` more, with the loop of every training; write Chrome's trace.

    In one process, from fresh weights, in a folder that is removed. output: ends in .json or .json.gz. warmup: at
    least 2; the first step is not in the timing.
    """
    if assignment.device == "cpu":  # it would complain that there is no GPU
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    if assignment.deterministic:
        os.environ.setdefault(*CUBLAS_WORKSPACE)
    threads = torch.get_num_threads()
    torch.set_num_threads(assignment.threads)
    try:
        with join_world(assignment.device) as world, tempfile.TemporaryDirectory() as folder:
            return _trace(assignment, Path(folder), world, output, steps=steps, warmup=warmup)
    finally:
        torch.set_num_threads(threads)


def _trace(assignment: Assignment, folder: Path, world: World, output: Path, *, steps: int, warmup: int) -> Trace:
    end = warmup + PROFILER_STEPS + steps
    pace = replace(pace_of(assignment), checkpoint_every=end + 1, evaluate_every=0, log_every=warmup)
    model, data, _ = fresh_training(assignment, world)
    timings: list[StepTiming] = []

    def report(progress: Progress) -> None:
        if progress.iteration <= warmup:
            timings.append(progress.timing)

    def observe(iteration: int) -> None:
        profiler.step()
        if iteration == end:
            raise _Traced

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if world.device.type == "cuda" else [])]
    plan = schedule(wait=warmup, warmup=PROFILER_STEPS, active=steps, repeat=1)
    with profile(activities=activities, schedule=plan) as profiler, suppress(_Traced):
        train(
            _lasting(assignment.train, end),
            model,
            data,
            RunDir(folder),
            world=world,
            pace=pace,
            anchor_ranges=assignment.anchor_ranges,
            report=report,
            observe=observe,
            stop=lambda: False,
        )
    part = folder / output.name
    profiler.export_chrome_trace(str(part))
    write_atomic(output, part.read_bytes())
    total, kernels = _kernels(profiler, steps)
    return Trace(world.device.type, steps, warmup, timings[-1], total, kernels)


def _lasting(job: TrainJob, iterations: int) -> TrainJob:
    """The job with a schedule that is long enough; the steps before its end stay what they are."""
    longer = msgspec.structs.replace(job.schedule, iterations=max(iterations, job.schedule.iterations))
    return msgspec.structs.replace(job, schedule=longer)


def _kernels(profiler: profile, steps: int) -> tuple[float, tuple[Kernel, ...]]:
    """Milliseconds per step of all kernels, and each of them, the longest first."""
    on_gpu = ProfilerActivity.CUDA in profiler.activities
    found = []
    for event in profiler.key_averages():
        if event.is_user_annotation or event.key.startswith("ProfilerStep"):
            continue
        if on_gpu != (event.device_type.name == "CUDA"):
            continue
        microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if microseconds > 0:
            found.append((event.key, microseconds / 1000 / steps, event.count / steps))
    total = sum(milliseconds for _, milliseconds, _ in found)
    kernels = [Kernel(name, milliseconds / total, milliseconds, calls) for name, milliseconds, calls in found]
    return total, tuple(sorted(kernels, key=lambda kernel: -kernel.milliseconds))
