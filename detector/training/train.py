"""The training of one job: a plain loop that reads from top to bottom.

N images of the whole batch are trained in groups (the paper's two images of one GPU); each group has its own padding
and loss normalisers, and the loss is the mean over all groups of all processes. So 8 processes, or one that
accumulates, take the same step up to the order of float32 sums.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from detector.data.loader import Group, TrainingData, training_batches
from detector.data.transfer import Transfer
from detector.device.agreement import Agreement
from detector.device.compile import compile_network
from detector.device.precision import precision_context
from detector.device.world import World, share_state
from detector.model.retinanet import RetinaNet
from detector.runs.assignment import AnchorRanges
from detector.runs.folder import RunDir
from detector.runs.job import TrainJob
from detector.runs.log_lines import stopped_at
from detector.runs.origin.loss_package import loss_source
from detector.runs.provenance import Inputs, Start
from detector.runs.timing import StepTiming, joined
from detector.sanity.anchor_counts import own_ranges
from detector.sanity.first_batch import (
    FirstLook,
    check_anchors,
    check_first_loss,
    check_scores,
    expected_first_loss,
    look_at,
)
from detector.sanity.health import GRADIENT
from detector.storage.retry import retry
from detector.training.gradients import gradient_norms
from detector.training.loss_state import LossState, loss_buffers
from detector.training.metrics import MetricsLog
from detector.training.pace import Pace
from detector.training.passes import Passes
from detector.training.schedule import learning_rate, parameter_groups, set_learning_rate
from detector.training.state import TrainingState
from detector.training.stop import StopRequested
from detector.training.window import Clock, Window
from detector.weights.find import BY_CONTENT

logger = logging.getLogger(__name__)
STOP_RETRY_SECONDS = 20.0  # a scheduler that asks for a stop kills soon after


@dataclass(frozen=True)
class Begun:
    """This start of a training, and the files that it reads: kept with the weights. No start: none is noted."""

    starts: list[Start] = field(default_factory=list)
    inputs: Inputs = field(default_factory=Inputs)


NOT_NOTED = Begun()


@dataclass(frozen=True)
class Progress:
    """What a heartbeat says of a training."""

    iteration: int
    loss: float | None
    timing: StepTiming
    note: str = ""  # why the training waits for its data


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
    observe: Callable[[int], None] = lambda iteration: None,
    stop: Callable[[], bool],
    begun: Begun = NOT_NOTED,
) -> TrainingState:
    """Train ``model`` to the end of the schedule, from the newest checkpoint of ``run`` where there is one.

    anchor_ranges: the first batch's anchors per image; None where nothing is known. evaluate: called in all processes
    after the checkpoints of every ``pace.evaluate_every`` iterations. observe: called at the end of each iteration with
    the number of steps taken; what it raises ends the training. begun: kept with the weights. Returns the state after
    the last step. Raises StopRequested when ``stop`` says so (state saved), TrainingError for a loss that is not
    finite, and before a fresh training's first checkpoint for what its first batch shows to be wrong, DataError where
    a resumed training began with other files.
    """
    optimizer = torch.optim.SGD(
        parameter_groups(model, job.optimizer), lr=job.optimizer.lr, momentum=job.optimizer.momentum, fused=True
    )
    scaler = torch.amp.GradScaler(world.device.type, enabled=job.precision == "fp16")
    if pace.compile:
        compile_network(model)
    source = loss_source(job)
    state = TrainingState(
        model, optimizer, scaler, starts=begun.starts, inputs=begun.inputs, loss_sources=[source] if source else []
    )
    start = state.resume(run.checkpoints, job.precision)
    share_state(model, world)
    buffers = loss_buffers(model)
    model.train()
    passes = Passes(model, precision=job.precision, scaler=scaler, world=world, pace=pace)
    transfer, wants_to_stop = Transfer(world.device), Agreement(world)
    window, clock = Window(world.device, workers=pace.loader_workers), Clock()
    with MetricsLog(run, start=start, enabled=world.is_main) as log:
        batches = training_batches(data, range(start, job.schedule.iterations), workers=pace.loader_workers)
        for iteration in range(start, job.schedule.iterations):
            try:
                with window.waiting_for_data():
                    loaded = next(batches)
            except StopRequested:  # storage is away; alone, no other process is in the middle of a step
                if world.size > 1 or iteration == start:
                    raise
                if window.count:
                    window.close(world, iteration - 1)  # never save weights that are not finite
                state.seconds += clock.lap()
                raise StopRequested(stopped_at(iteration, saved=_save(state, run, iteration, must=True))) from None
            groups = transfer(loaded)
            rate = learning_rate(iteration, job.optimizer.lr, job.schedule)
            set_learning_rate(optimizer.param_groups, rate)
            # A resumed training has passed it.
            looks = _look(job, model, data, groups, world, anchor_ranges) if iteration == 0 else []
            loss_state = LossState(buffers)
            losses = passes.run(groups, loss_state)
            loss_state.close(world)
            scaler.step(optimizer)
            scaler.update()
            window.add(losses, images=sum(len(group.images) for group in groups))

            done = iteration + 1
            if looks:
                _check_first_loss(job, looks, losses)
            last = done == job.schedule.iterations
            looking = pace.evaluate_every > 0 and done % pace.evaluate_every == 0
            if done % pace.log_every == 0 or last or done % pace.checkpoint_every == 0 or looking or done == 1:
                norms = gradient_norms(model)
                means, timing = window.close(world, iteration)
                state.timing = joined(state.timing, timing)
                log.write(done, {**means, "lr": rate, **timing.per_iteration(), **_finite(norms)})
                log.say(done, job.schedule.iterations, means, rate=rate, timing=timing)
                report(Progress(done, means["loss"], timing, window.note))
            with window.waiting_for_device():
                stopping = wants_to_stop(stop())
            if (done % pace.checkpoint_every == 0 or looking or stopping) and not last:
                if stopping and window.count:
                    _, timing = window.close(world, iteration)  # never save weights that are not finite
                    state.timing = joined(state.timing, timing)
                state.seconds += clock.lap()
                saved = _save(state, run, done, must=stopping) if world.is_main else True
                if stopping:
                    raise StopRequested(stopped_at(done, saved=saved))
                if looking:
                    evaluate(done)
                    clock.lap()  # no training time
                    window.clock.lap()
            observe(done)
    state.seconds += clock.lap()
    return state


def _save(state: TrainingState, run: RunDir, done: int, *, must: bool) -> bool:
    """Write a checkpoint; whether it is there.

    Where storage fails, a training goes on with the one before; a stop (``must``) waits a little for it.
    """
    try:
        if must:
            retry(
                lambda: state.save(run.checkpoints, done), f"checkpoint {done}", seconds=STOP_RETRY_SECONDS, unseen=True
            )
        else:
            state.save(run.checkpoints, done)
    except OSError as error:
        logger.warning("checkpoint %d was not written (%s); the one before is kept", done, error)
        return False
    return True


def _finite(norms: dict[str, torch.Tensor]) -> dict[str, float]:
    """As columns of the log; fp16's gradients overflow now and then, and their step is left out."""
    values = {f"{GRADIENT}{part}": float(norm) for part, norm in norms.items()}
    return {column: value for column, value in values.items() if math.isfinite(value)}


def _look(
    job: TrainJob,
    model: RetinaNet,
    data: TrainingData,
    groups: list[Group],
    world: World,
    anchor_ranges: AnchorRanges | None,
) -> list[FirstLook]:
    with precision_context(job.precision, world.device):
        looks = [look_at(model, group) for group in groups]
    if anchor_ranges is not None:
        check_anchors(looks, anchor_ranges, world, lambda: own_ranges(job, data.index, data.positions))
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
