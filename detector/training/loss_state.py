"""Running statistics of a loss: persistent buffers that it changes while it is called.

Every forward pass of a step begins with the buffers as they were at the step's start. After the step each buffer is the
mean, over all groups of all processes, of what the passes made of it. So a moving average whose update is a mean over
the groups of a call comes out the same (up to float rounding) however the groups are spread over passes and processes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from detector.device.world import World

NETWORK = ("backbone.", "head.")  # how the names of the network's own tensors begin in a model's state dict


def loss_buffers(model: nn.Module) -> list[Tensor]:
    """The persistent buffers of a model that are not its network's: those of its loss."""
    kept = model.state_dict().keys()
    return [value for name, value in model.named_buffers() if name in kept and not name.startswith(NETWORK)]


class LossState:
    """The loss's buffers over one step of a training."""

    def __init__(self, buffers: Sequence[Tensor]) -> None:
        self.buffers = buffers
        self.before = [value.clone() for value in buffers]
        self.sums = [torch.zeros_like(value, dtype=torch.float64) for value in buffers]

    def take(self, share: float) -> None:
        """Note what a pass over ``share`` (0..1) of this process's groups made of the buffers, and undo it."""
        for value, before, total in zip(self.buffers, self.before, self.sums, strict=True):
            total.add_(value, alpha=share)
            value.copy_(before)

    def close(self, world: World) -> None:
        """Set the buffers to the mean over all groups of all processes; those of whole numbers are rounded."""
        for value, total in zip(self.buffers, self.sums, strict=True):
            if world.size > 1:
                dist.all_reduce(total)
                total /= world.size
            value.copy_(total if value.is_floating_point() else total.round())
