"""The training of one job: a plain loop that reads from top to bottom.

N images of the whole batch are trained in groups (the paper's two images of one GPU); each group has its own padding
and loss normalisers, and the loss is the mean over all groups of all processes. So 8 processes, or one that
accumulates, take the same step up to the order of float32 sums.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detector.data.loader import Group, TrainingData, training_batches
from detector.device.compile import compile_network
from detector.device.precision import precision_context
from detector.device.world import World
from detector.errors import TrainingError
from detector.model.retinanet import RetinaNet
from detector.runs.assignment import AnchorRanges
from detector.runs.folder import RunDir
from detector.runs.job import Precision, TrainJob
from detector.runs.log_lines import stopped_at
from detector.runs.loss_package import loss_source
from detector.sanity.first_batch import (
    FirstLook,
    check_anchors,
    check_first_loss,
    check_scores,
    expected_first_loss,
    look_at,
)
from detector.storage.retry import retry
from detector.training.loss_state import LossState, loss_buffers
from detector.training.metrics import MetricsLog
from detector.training.schedule import learning_rate, parameter_groups, set_learning_rate
from detector.training.state import TrainingState
from detector.training.stop import StopRequested
from detector.weights.find import BY_CONTENT

logger = logging.getLogger(__name__)
LOG_EVERY = 10  # iterations
STOP_RETRY_SECONDS = 20.0  # a scheduler that asks for a stop kills soon after


@dataclass(frozen=True)
class Pace:
    """How a training is executed; none of it changes the result beyond float rounding."""

    checkpoint_every: int
    groups_per_forward: int
    loader_workers: int
    evaluate_every: int = 0  # 0: never
    compile: bool = False


@dataclass(frozen=True)
class Progress:
    """What a heartbeat says of a training."""

    iteration: int
    loss: float | None
    seconds_per_iteration: float


def train(
    job: TrainJob,
    model: RetinaNet,
    data: TrainingData,
    run: RunDir,
    *,
    world: World,
    pace: Pace,
    anchor_ranges: AnchorRanges | None,
    report: Callable[[Progress], None],
    evaluate: Callable[[int], None] = lambda iteration: None,
    stop: Callable[[], bool],
) -> TrainingState:
    """Train ``model`` to the end of the schedule, from the newest checkpoint of ``run`` where there is one.

    anchor_ranges: the first batch's anchors per image; None where nothing is known. evaluate: called in all processes
    after the checkpoints of every ``pace.evaluate_every`` iterations. Returns the state after the last step. Raises
    StopRequested when ``stop`` says so (state saved), TrainingError for a loss that is not finite, and
    before a fresh training's first checkpoint for what its first batch shows to be wrong.
    """
    optimizer = torch.optim.SGD(
        parameter_groups(model, job.optimizer), lr=job.optimizer.lr, momentum=job.optimizer.momentum, fused=True
    )
    scaler = torch.amp.GradScaler(world.device.type, enabled=job.precision == "fp16")
    if pace.compile:
        compile_network(model)
    source = loss_source(job)
    state = TrainingState(model, optimizer, scaler, pace.compile, loss_sources=[source] if source else [])
    start = state.resume(run.checkpoints, world)
    replica = _distributed(model, world)
    buffers = loss_buffers(model)
    model.train()
    window, clock = _Window(), _Clock()
    with MetricsLog(run, start=start, enabled=world.is_main) as log:
        batches = training_batches(data, range(start, job.schedule.iterations), workers=pace.loader_workers)
        for iteration, groups in enumerate(batches, start):
            rate = learning_rate(iteration, job.optimizer.lr, job.schedule)
            set_learning_rate(optimizer.param_groups, rate)
            optimizer.zero_grad(set_to_none=True)
            # A resumed training has passed it.
            looks = _look(job, model, groups, world, anchor_ranges) if iteration == 0 else []
            loss_state = LossState(buffers)
            losses = _accumulate(replica, groups, job.precision, scaler, world, pace, loss_state)
            loss_state.close(world)
            scaler.step(optimizer)
            scaler.update()
            window.add(losses)

            done = iteration + 1
            if looks:
                _check_first_loss(job, looks, losses)
            last = done == job.schedule.iterations
            looking = pace.evaluate_every > 0 and done % pace.evaluate_every == 0
            if done % LOG_EVERY == 0 or last or done % pace.checkpoint_every == 0 or looking or done == 1:
                means, seconds = window.close(world, iteration)
                log.write(done, {**means, "lr": rate, "seconds_per_iteration": seconds})
                report(Progress(done, means["loss"], seconds))
            stopping = _agree(stop(), world)
            if (done % pace.checkpoint_every == 0 or looking or stopping) and not last:
                if stopping and window.count:
                    window.close(world, iteration)  # never save weights that are not finite
                state.seconds += clock.lap()
                saved = _save(state, run, done, must=stopping) if world.is_main else True
                if stopping:
                    raise StopRequested(stopped_at(done, saved=saved))
                if looking:
                    evaluate(done)
                    clock.lap()  # no training time
                    window.clock.lap()
    state.seconds += clock.lap()
    return state


def _save(state: TrainingState, run: RunDir, done: int, *, must: bool) -> bool:
    """Write a checkpoint; whether it is there.

    Where storage fails, a training goes on with the one before; a stop (``must``) waits a little for it.
    """
    try:
        if must:
            retry(lambda: state.save(run.checkpoints, done), f"checkpoint {done}", seconds=STOP_RETRY_SECONDS)
        else:
            state.save(run.checkpoints, done)
    except OSError as error:
        logger.warning("checkpoint %d was not written (%s); the one before is kept", done, error)
        return False
    return True


def _accumulate(
    replica: nn.Module,
    groups: list[Group],
    precision: Precision,
    scaler: torch.amp.GradScaler,
    world: World,
    pace: Pace,
    loss_state: LossState | None = None,
) -> dict[str, torch.Tensor]:
    """Forward and backward over this process's groups; returns its mean losses, detached (no host sync)."""
    micro_batches = list(_micro_batches(groups, pace.groups_per_forward))
    total: dict[str, torch.Tensor] = {}
    for i, micro in enumerate(micro_batches):
        moved = [group.to(world.device) for group in micro]
        images = [image for group in moved for image in group.images]
        targets = [target for group in moved for target in group.targets]
        share = len(micro) / len(groups)
        with _synchronised(replica, last=i == len(micro_batches) - 1):
            with precision_context(precision, world.device):
                losses = replica(images, targets)
            loss = sum(losses.values()) * share
            scaler.scale(loss).backward()
        if loss_state is not None:
            loss_state.take(share)
        for name, value in {**losses, "loss": sum(losses.values())}.items():
            total[name] = total.get(name, 0) + value.detach() * share
    return total


def _micro_batches(groups: list[Group], groups_per_forward: int) -> Iterator[list[Group]]:
    """Neighbouring groups of one padded shape, at most ``groups_per_forward`` of them."""
    for _, same in groupby(groups, key=lambda group: (group.padded_shape, len(group.images))):
        members = list(same)
        for first in range(0, len(members), groups_per_forward):
            yield members[first : first + groups_per_forward]


def _synchronised(replica: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
    """Gradients are exchanged once per step, in its last backward pass."""
    if isinstance(replica, DistributedDataParallel) and not last:
        context: AbstractContextManager[Any] = replica.no_sync()
        return context
    return nullcontext()


def _distributed(model: nn.Module, world: World) -> nn.Module:
    if world.size == 1:
        return model
    devices = [world.device.index] if world.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)


def _agree(wanted: bool, world: World) -> bool:
    """Whether any process wants to stop; all of them get the same answer at the same step."""
    if world.size == 1:
        return wanted
    flag = torch.tensor(float(wanted), device=world.device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag.item())


def _look(
    job: TrainJob, model: RetinaNet, groups: list[Group], world: World, anchor_ranges: AnchorRanges | None
) -> list[FirstLook]:
    with precision_context(job.precision, world.device):
        looks = [look_at(model, group.to(world.device)) for group in groups]
    if anchor_ranges is not None:
        check_anchors(looks, anchor_ranges, world)
    if not _is_pretrained_detector(job):
        check_scores(looks, job.model.prior_probability)
    return looks


def _is_pretrained_detector(job: TrainJob) -> bool:
    """Whether the classifier may have been trained already: then its first scores cannot be predicted."""
    return job.model.weights.startswith(BY_CONTENT)


def _check_first_loss(job: TrainJob, looks: list[FirstLook], losses: dict[str, torch.Tensor]) -> None:
    expected = expected_first_loss(job.loss, job.model.prior_probability, looks)
    if expected is not None and not _is_pretrained_detector(job):
        check_first_loss(float(losses["classification"]), expected)


class _Window:
    """Means of the losses since the last line of the log, kept on the device so that no step waits for them."""

    def __init__(self) -> None:
        self.clock = _Clock()
        self.sums: dict[str, torch.Tensor] = {}
        self.count = 0

    def add(self, losses: dict[str, torch.Tensor]) -> None:
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0) + value
        self.count += 1

    def close(self, world: World, iteration: int) -> tuple[dict[str, float], float]:
        """Means over the window and all processes, and seconds per iteration. Raises TrainingError where not finite."""
        values = torch.stack(list(self.sums.values())) / self.count
        if world.size > 1:
            dist.all_reduce(values)
            values /= world.size
        means = dict(zip(self.sums, values.tolist(), strict=True))
        seconds = self.clock.lap() / self.count
        if not all(math.isfinite(value) for value in means.values()):
            shown = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
            raise TrainingError(
                f"The loss is not finite in iterations {iteration + 2 - self.count} to {iteration + 1} ({shown}). "
                "Usual causes: a learning rate too high for the batch, fp16 overflow (try precision bf16 or fp32), "
                "a broken box. The last checkpoint before is kept; a lower rate is another run: --set optimizer.lr=..."
            )
        self.sums, self.count = {}, 0
        return means, seconds


class _Clock:
    def __init__(self) -> None:
        self.since = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the start or the last lap."""
        before, self.since = self.since, time.perf_counter()
        return self.since - before
