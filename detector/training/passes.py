"""The forward and backward passes of one step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detector.data.loader import Group
from detector.device.precision import precision_context
from detector.device.world import World
from detector.runs.job import Precision
from detector.training.loss_state import LossState
from detector.training.pace import Pace


def accumulate(
    replica: nn.Module,
    groups: list[Group],
    precision: Precision,
    scaler: torch.amp.GradScaler,
    world: World,
    pace: Pace,
    loss_state: LossState | None = None,
) -> dict[str, torch.Tensor]:
    """Forward and backward over this process's groups; returns its mean losses, detached (no host sync)."""
    micros = list(micro_batches(groups, pace.groups_per_forward))
    total: dict[str, torch.Tensor] = {}
    for i, micro in enumerate(micros):
        moved = [group.to(world.device) for group in micro]
        images = [image for group in moved for image in group.images]
        targets = [target for group in moved for target in group.targets]
        share = len(micro) / len(groups)
        with _synchronised(replica, last=i == len(micros) - 1):
            with precision_context(precision, world.device):
                losses = replica(images, targets)
            loss = sum(losses.values()) * share
            scaler.scale(loss).backward()
        if loss_state is not None:
            loss_state.take(share)
        for name, value in {**losses, "loss": sum(losses.values())}.items():
            total[name] = total.get(name, 0) + value.detach() * share
    return total


def micro_batches(groups: list[Group], groups_per_forward: int) -> Iterator[list[Group]]:
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


def distributed(model: nn.Module, world: World) -> nn.Module:
    if world.size == 1:
        return model
    devices = [world.device.index] if world.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)
