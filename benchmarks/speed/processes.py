"""A training step on several processes, which add up their gradients, beside torchvision's RetinaNet.

Each process has two images and one thread, as a GPU of the paper's eight has two images: in the best case a step takes
as long as that of one process. On GPUs where there are several, else on the cores of the CPU.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from functools import partial
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from benchmarks.measure import Curve, Report, Row, compare
from benchmarks.speed.step import batch_of, models_on, stepper, trained_parameters
from detector.training.schedule import parameter_groups

IMAGES, SIDE, SMALL_SIDE = 2, 320, 64


def report(*, quick: bool) -> Report:
    """By one process, two, and twice as many up to all devices. Two minutes on two cores; quick: seconds."""
    on_gpus = torch.cuda.device_count() > 1
    most = torch.cuda.device_count() if on_gpus else len(os.sched_getaffinity(0))
    counts = [count for count in (1, 2, 4, 8, 16) if count <= most]
    found = [measure(count, on_gpus=on_gpus, quick=quick) for count in counts]
    work = f"training step, focal loss, ResNet-50, {IMAGES} images of short side {_side(quick)} a process"
    kind = "GPUs" if on_gpus else "cores"
    names = {"ours": "ours", "theirs": "torchvision"}
    curve = Curve(
        title=f"A step over processes, short side {_side(quick)}, {kind}",
        x="processes",
        xs=tuple(map(float, counts)),
        series={shown: tuple(seconds[name] for seconds in found) for name, shown in names.items()},
        note=f"{IMAGES} images per process",
    )
    rows = [
        Row(
            work=f"{work}, {_words(count)} on {kind}",
            peer="torchvision's RetinaNet",
            peer_seconds=seconds["theirs"],
            seconds=seconds["ours"],
            limit="one process alone",
            limit_seconds=found[0]["ours"],
        )
        for count, seconds in zip(counts, found, strict=True)
        if count > 1
    ]
    return Report(rows=tuple(rows), curves=(curve,))


def measure(count: int, *, on_gpus: bool, quick: bool) -> dict[str, float]:
    """Rank 0's median seconds of a step of each detector in ``count`` processes."""
    spawn = multiprocessing.get_context("spawn")
    results: SimpleQueue[dict[str, float]] = spawn.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        work = partial(take_steps, count, Path(folder) / "meeting", results, on_gpus=on_gpus, quick=quick)
        processes = [spawn.Process(target=work, args=(rank,)) for rank in range(count)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError(f"A process of {count} failed; what it printed says why.")
    return results.get()


def take_steps(
    count: int, meeting: Path, results: SimpleQueue[dict[str, float]], rank: int, *, on_gpus: bool, quick: bool
) -> None:
    """What one process does."""
    device = torch.device("cuda", rank) if on_gpus else torch.device("cpu")
    torch.set_num_threads(1)
    dist.init_process_group("nccl" if on_gpus else "gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
    models, batch = models_on(device), batch_of(IMAGES, _side(quick), device)
    models.train(True)
    groups = parameter_groups(models.ours, models.job.optimizer)
    ours = torch.optim.SGD(groups, lr=1e-12, momentum=0.9, fused=True)
    theirs = torch.optim.SGD(trained_parameters(models), lr=1e-12, momentum=0.9, weight_decay=1e-4)
    candidates: dict[str, Callable[[], object]] = {
        "ours": partial(stepper, DistributedDataParallel(models.ours), ours, batch.images, batch.targets),
        "theirs": partial(stepper, DistributedDataParallel(models.theirs), theirs, batch.unit_images, batch.targets),
    }
    seconds = compare(candidates, rounds=1 if quick else 3, wait=torch.cuda.synchronize if on_gpus else lambda: None)
    if rank == 0:
        results.put(seconds)
    dist.destroy_process_group()


def _side(quick: bool) -> int:
    return SMALL_SIDE if quick else SIDE


def _words(count: int) -> str:
    return {2: "two", 4: "four", 8: "eight", 16: "sixteen"}[count] + " processes"
