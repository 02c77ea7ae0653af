"""All gradients of a network in one tensor: set to zero, and averaged over processes, in one operation each."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn

from detector.device.world import World

ALIGNMENT = 32  # elements: 128 bytes of float32, the width of a GPU's memory access

# By the name that health has for it, a part of the network as RetinaNet names its module.
PARTS = {
    "backbone": "backbone.body",
    "pyramid": "backbone.fpn",
    "classifier": "head.classification_head",
    "boxes": "head.regression_head",
}


class Gradients:
    """The ``grad`` of each trained parameter, as views of one flat tensor per dtype.

    One process on a CPU keeps torch's own gradients, which are new in each step.
    """

    def __init__(self, model: nn.Module, world: World) -> None:
        self.model, self.world = model, world
        self.flat: list[torch.Tensor] = []
        if world.size > 1 or world.device.type == "cuda":
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
            for dtype in dict.fromkeys(parameter.dtype for parameter in trained):
                self.flat.append(_as_views([parameter for parameter in trained if parameter.dtype == dtype]))

    def zero(self) -> None:
        """Before the first pass of a step."""
        if not self.flat:
            self.model.zero_grad(set_to_none=True)
        for flat in self.flat:
            flat.zero_()

    def average(self) -> None:
        """After the last pass of a step: the mean over all processes."""
        if self.world.size == 1:
            return
        for flat in self.flat:
            flat /= self.world.size  # before the sum, which may overflow
            dist.all_reduce(flat)


def gradient_norms(model: nn.Module) -> dict[str, torch.Tensor]:
    """The norm of the gradients of each part of the network that is trained: scalars on its device."""
    found = {}
    for name in PARTS:
        gradients = [
            parameter.grad for parameter in model.get_submodule(PARTS[name]).parameters() if parameter.requires_grad
        ]
        known = [gradient for gradient in gradients if gradient is not None]
        if known:
            found[name] = torch.stack(torch._foreach_norm(known)).norm()
    return found


def _as_views(parameters: list[nn.Parameter]) -> torch.Tensor:
    """Give each parameter a gradient of its own memory layout, so that optimisers take their fast paths."""
    starts, end = [], 0
    for parameter in parameters:
        starts.append(end)
        end += -(-parameter.numel() // ALIGNMENT) * ALIGNMENT
    flat = parameters[0].new_zeros(end)
    for parameter, start in zip(parameters, starts, strict=True):
        parameter.grad = flat[start:].as_strided(parameter.size(), parameter.stride(), start)
    return flat
