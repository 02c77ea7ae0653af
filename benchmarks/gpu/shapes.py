"""Iterations on images of all shapes that COCO has, against the sum of their passes, each timed alone at its shape.

The sum is what the device has to do; the rest of an iteration is what stands between the passes: other kernels chosen
for each shape, copies from main memory, launches, the optimiser.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from benchmarks.gpu.coco_sizes import batch
from benchmarks.gpu.device import device_of, name_of, steady
from benchmarks.gpu.step import Execution, dr_job, model_of, passes_of
from benchmarks.measure import Goal, Report, Row
from detector.data.loader import Group
from detector.data.transfer import Transfer
from detector.model.retinanet import RetinaNet
from detector.runs.job import Precision
from detector.training.passes import micro_batches
from detector.training.schedule import parameter_groups

GOAL = 1.25
MAX_SIZE = 1333 / 800  # long side over short side


def report(*, quick: bool) -> Report:
    """bf16 and tf32, groups of one shape in one pass. A minute; quick: two iterations of 64 pixels."""
    device = device_of(quick=quick)
    side, num_groups, num_batches = (64, 2, 2) if quick else (800, 8, 12)
    generator = torch.Generator().manual_seed(0)
    pinned = device.type == "cuda"
    batches = [
        batch(generator, num_groups=num_groups, short_side=side, max_size=round(side * MAX_SIZE), pinned=pinned)
        for _ in range(num_batches)
    ]
    shapes = {group.padded_shape for groups in batches for group in groups}
    facts: dict[str, float | str] = {f"padded shapes in {num_batches} batches of {2 * num_groups} images": len(shapes)}
    rows, goals = [], []
    precisions: tuple[Precision, ...] = ("fp32",) if quick else ("bf16", "tf32")
    for precision in precisions:
        row = _row(precision, batches, device, quick=quick)
        rows.append(row)
        what = f"an iteration of all shapes, {2 * num_groups} images at {side} px, {precision}, beside its passes"
        goals.append(Goal(what=what, value=row.seconds / row.peer_seconds, unit="x their sum", goal=GOAL))
    return Report(rows=tuple(rows), goals=tuple(goals), facts=facts)


def _row(precision: Precision, batches: Sequence[list[Group]], device: torch.device, *, quick: bool) -> Row:
    execution = Execution(precision, len(batches[0]), captured=device.type == "cuda")
    job = dr_job()
    model = model_of(job, device)
    optimizer = torch.optim.SGD(parameter_groups(model, job.optimizer), lr=1e-12, momentum=0.9, fused=True)
    passes, transfer = passes_of(model, execution, device), Transfer(device)

    def iterations() -> None:
        for groups in batches:
            passes.run(transfer(groups))
            optimizer.step()

    # The first two rounds meet every shape, and are not counted.
    seconds = steady({"ours": iterations}, device, rounds=1 if quick else 3, repeats=1)["ours"] / len(batches)
    alone = _passes_alone(model, execution, batches, device, quick=quick)
    images = sum(len(group.images) for group in batches[0])
    return Row(
        work=f"training iteration, DR loss, ResNet-50, {images} images of all shapes of COCO, short side "
        f"{min(batches[0][0].images[0].shape[-2:])}, {execution}, {name_of(device)}",
        peer="the same passes, each timed alone",
        peer_seconds=alone,
        seconds=seconds,
        goal=f"<= {GOAL}x the peer",
    )


def _passes_alone(
    model: RetinaNet, execution: Execution, batches: Sequence[list[Group]], device: torch.device, *, quick: bool
) -> float:
    """Seconds of an iteration's passes in the mean, if each followed itself. Images are on the device."""
    members = [micro for groups in batches for micro in micro_batches(groups, execution.groups_per_forward)]
    by_shape = {(micro[0].padded_shape, len(micro)): [group.to(device) for group in micro] for micro in members}
    passes = passes_of(model, execution, device)
    found = {}
    for key, micro in by_shape.items():
        work = {"pass": partial(passes.run, micro)}
        found[key] = steady(work, device, rounds=1 if quick else 3, repeats=1 if quick else 3)["pass"]
    return sum(found[micro[0].padded_shape, len(micro)] for micro in members) / len(batches)
