"""Training steps of the paper's batch on a GPU: 16 images of 800 x 1333 in groups of 2, in every execution.

Ours is what a training runs (``detector.training.passes``), with the same optimiser. Beside it are torchvision's
RetinaNet, which takes all images at once with the focal loss, and the convolutions of our own step alone.
"""

from __future__ import annotations

import gc
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.gpu.device import device_of, name_of, num_kernels, peak_bytes, steady
from benchmarks.measure import Goal, Report, Row
from benchmarks.speed.convolutions import convolutions_of
from benchmarks.speed.step import FLOOR, Batch, Models, batch_of, models_on, trained_parameters
from detector.build import build_model
from detector.data.loader import Group
from detector.device.algorithms import training_algorithms
from detector.device.compile import compile_network
from detector.device.precision import precision_context
from detector.device.world import World
from detector.model.retinanet import RetinaNet
from detector.runs.job import Precision, TrainJob
from detector.training.pace import Pace
from detector.training.passes import Passes
from detector.training.schedule import parameter_groups
from harness.registry.load import Registry
from harness.registry.resolve import jobs, recipe
from harness.registry.speeds import MeasuredSpeed

IMAGES_PER_GROUP = 2
PRECISIONS: tuple[Precision, ...] = ("bf16", "tf32", "fp16", "fp32")  # what matters first, first
# Goals: milliseconds per step with all groups in one pass; and per group where each is a pass.
TOGETHER_MS: dict[str, float] = {"bf16": 60, "tf32": 120}
ALONE_MS: dict[str, float] = {"bf16": 12}
Step = Callable[[], object]


@dataclass(frozen=True)
class Execution:
    """How a step is run."""

    precision: Precision
    groups_per_forward: int
    captured: bool = False
    compiled: bool = False

    def __str__(self) -> str:
        how = "CUDA graphs" if self.captured else "launched one by one"
        how += " and torch.compile" if self.compiled else ""
        return f"{self.precision}, groups per pass: {self.groups_per_forward}, {how}"


def report(*, quick: bool) -> Report:
    """Rows of all executions. Two minutes; quick: 4 images of 64 x 106 pixels, in seconds."""
    device = device_of(quick=quick)
    num_images, side = (4, 64) if quick else (16, 800)
    batch, models = batch_of(num_images, side, device), models_on(device)
    groups = groups_of(batch)
    rows, facts = [], dict[str, float | str]()
    best: dict[tuple[str, int], Row] = {}
    speeds = []
    for precision in ("fp32",) if quick else PRECISIONS:
        theirs = _torchvision(models, batch, precision)
        peer = steady({"theirs": theirs}, device, rounds=1 if quick else 3, repeats=1)["theirs"]
        for together in (1, len(groups)):
            floor = _floor(precision, together, groups, device, quick=quick)
            for execution in _executions(precision, together, device, quick=quick):
                row = _row(execution, groups, device, peer, floor, facts, quick=quick)
                if row is None:
                    continue
                rows.append(row)
                if execution.captured and not execution.compiled:  # as profiles run
                    speeds.append(speed_of(execution, row, num_images, side))
                print(f"{row.work}: {1e3 * row.seconds:.1f} ms", flush=True)  # shown even if time runs out
                key = (precision, together)
                best[key] = min((row, best.get(key, row)), key=lambda row: row.seconds)
    return Report(rows=tuple(rows), goals=tuple(_goals(best, len(groups))), speeds=tuple(speeds), facts=facts)


def speed_of(execution: Execution, row: Row, num_images: int, short_side: int) -> MeasuredSpeed:
    """The row as plans read it."""
    versions = f"torch {torch.__version__.split('+')[0]}"
    return MeasuredSpeed(
        gpu=torch.cuda.get_device_name(),
        gpus=1,
        of="step",
        backbone="resnet50",
        precision=execution.precision,
        groups_per_forward=execution.groups_per_forward,
        images=num_images,
        short_side=short_side,
        seconds_per_iteration=round(row.seconds, 4),
        source=f"make bench, {time.strftime('%Y-%m-%d')}, images of one shape in CUDA graphs, {versions}",
    )


def groups_of(batch: Batch) -> list[Group]:
    """The batch in groups, on its device."""
    firsts = range(0, len(batch.images), IMAGES_PER_GROUP)
    return [Group(batch.images[at : at + IMAGES_PER_GROUP], batch.targets[at : at + IMAGES_PER_GROUP]) for at in firsts]


def _executions(precision: Precision, together: int, device: torch.device, *, quick: bool) -> list[Execution]:
    found = [Execution(precision, together)]
    if device.type == "cuda":
        found.append(Execution(precision, together, captured=True))
        if precision == "bf16" and together > 1 and not quick and shutil.which(os.environ.get("CXX", "g++")):
            found.append(Execution(precision, together, captured=True, compiled=True))
    return found


def _row(
    execution: Execution,
    groups: Sequence[Group],
    device: torch.device,
    peer: float,
    floor: float,
    facts: dict[str, float | str],
    *,
    quick: bool,
) -> Row | None:
    """None where this execution cannot be had, of which a fact says why."""
    height, width = groups[0].images[0].shape[-2:]
    size = f"ResNet-50, {sum(len(group.images) for group in groups)} x {height} x {width} in groups of 2"
    work = f"training step, DR loss, {size}, {execution}, {name_of(device)}"
    try:
        with our_step(execution, groups, device) as step:
            seconds = steady({"ours": step}, device, rounds=1 if quick else 5, repeats=1 if quick else 2)["ours"]
            # A graph's memory is its own and is held between replays.
            peak = None if execution.captured else peak_bytes(step, device)
            if peak is not None:
                facts[f"{work}: peak memory beyond weights, GiB"] = round(peak / 2**30, 2)
            if (kernels := num_kernels(step, device)) is not None:
                facts[f"{work}: kernels"] = kernels
    except RuntimeError as error:
        facts[work] = f"not measured: {str(error).splitlines()[0]}"
        return None
    return Row(
        work=work,
        peer="torchvision's RetinaNet, focal loss, all images at once",
        peer_seconds=peer,
        seconds=seconds,
        limit=FLOOR,
        limit_seconds=floor,
    )


@contextmanager
def our_step(execution: Execution, groups: Sequence[Group], device: torch.device) -> Iterator[Step]:
    """A step so small that the weights stay as they are; what it took is freed after it."""
    job = dr_job()
    model = model_of(job, device)
    optimizer = torch.optim.SGD(parameter_groups(model, job.optimizer), lr=1e-12, momentum=0.9, fused=True)
    if execution.compiled:
        compile_network(model)
    passes = passes_of(model, execution, device)

    def step() -> None:
        passes.run(list(groups))
        optimizer.step()

    try:
        yield step
    finally:
        if device.type == "cuda":
            torch.cuda.synchronize()
            gc.collect()
            torch.cuda.empty_cache()


def passes_of(model: RetinaNet, execution: Execution, device: torch.device) -> Passes:
    """Forward and backward of groups, as a training runs them in this execution."""
    world, scaler = World(0, 1, device), torch.amp.GradScaler(device.type, enabled=False)
    pace = Pace(
        checkpoint_every=10**9,
        groups_per_forward=execution.groups_per_forward,
        loader_workers=0,
        compile=execution.compiled,
        cuda_graphs=execution.captured,
    )
    return Passes(model, precision=execution.precision, scaler=scaler, world=world, pace=pace)


def dr_job() -> TrainJob:
    """The paper's DR training of ResNet-50."""
    return jobs(recipe(Registry(), "dr-r50-1x"), 0)[0]


def model_of(job: TrainJob, device: torch.device) -> RetinaNet:
    """Random weights, 91 classes as the batch has them."""
    torch.manual_seed(0)
    test = jobs(recipe(Registry(), "dr-r50-1x"), 0)[1]
    return build_model(job, num_classes=91, test=test, pretrained=False).to(device).train()


def _floor(precision: Precision, together: int, groups: Sequence[Group], device: torch.device, *, quick: bool) -> float:
    """Seconds of the step's convolutions alone."""
    with our_step(Execution(precision, together), groups, device) as step, precision_context(precision, device):
        alone = convolutions_of(step)
        with training_algorithms(device, deterministic=False):
            return steady({"floor": alone}, device, rounds=1 if quick else 3, repeats=1)["floor"]


def _torchvision(models: Models, batch: Batch, precision: Precision) -> Step:
    """torchvision's step with all images in one pass."""
    models.train(True)
    parameters: list[nn.Parameter] = trained_parameters(models)
    optimizer = torch.optim.SGD(parameters, lr=1e-12, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with precision_context(precision, batch.images[0].device):
            loss = sum(models.theirs(batch.unit_images, batch.targets).values())
        loss.backward()
        optimizer.step()

    return step


def _goals(best: dict[tuple[str, int], Row], num_groups: int) -> Iterator[Goal]:
    """Of the fastest execution without torch.compile or with it."""
    for (precision, together), row in best.items():
        ms = 1e3 * row.seconds
        if together > 1 and precision in TOGETHER_MS:
            what = f"training step, 16 images, {precision}, all groups in one pass"
            yield Goal(what=what, value=ms, unit="ms", goal=TOGETHER_MS[precision])
        if together == 1 and precision in ALONE_MS:
            what = f"training step, 16 images, {precision}, one group per pass"
            yield Goal(what=what, value=ms / num_groups, unit="ms per group", goal=ALONE_MS[precision])
