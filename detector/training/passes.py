"""The forward and backward passes of one step, and the gradients that they leave."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import torch
from torch import Tensor

from detector.data.loader import Group
from detector.device.algorithms import training_algorithms
from detector.device.memory import explained_lack_of_memory
from detector.device.precision import precision_context
from detector.device.world import World
from detector.model.retinanet import RetinaNet
from detector.runs.job import Precision
from detector.training.gradients import Gradients
from detector.training.graphs import Inputs, PassGraphs
from detector.training.loss_state import LossState
from detector.training.pace import Pace


class Passes:
    """Takes a network and a step's groups to the step's gradients and losses.

    On a GPU, a pass of a shape that was met before is replayed as a CUDA graph (``pace.cuda_graphs``): the host then
    starts one graph where it would launch some thousand kernels. The host never waits for the device here.
    """

    def __init__(
        self, model: RetinaNet, *, precision: Precision, scaler: torch.amp.GradScaler, world: World, pace: Pace
    ) -> None:
        """model: in training mode, on the world's device, already compiled where ``pace.compile`` says so."""
        self.model, self.precision, self.scaler, self.world, self.pace = model, precision, scaler, world, pace
        self.gradients = Gradients(model, world)
        captured = world.device.type == "cuda" and pace.cuda_graphs
        self._graphs = PassGraphs(self._forward_backward, world.device) if captured else None

    def run(self, groups: list[Group], loss_state: LossState | None = None) -> dict[str, Tensor]:
        """Forward and backward over this process's groups, which are on its device.

        Leaves the gradients' mean over the groups of all processes in the parameters' ``grad``. Returns this process's
        mean losses and their sum, "loss": scalars on the device, detached.
        """
        self.gradients.zero()
        total: dict[str, Tensor] = {}
        with training_algorithms(self.world.device, deterministic=self.pace.deterministic):
            for micro in self._micro_batches(groups):
                share = len(micro) / len(groups)
                losses = self._pass(micro, share)
                if loss_state is not None:
                    loss_state.take(share)
                for name, value in {**losses, "loss": reduce(torch.add, losses.values())}.items():
                    total[name] = total.get(name, 0) + value * share
        self.gradients.average()
        return total

    def _micro_batches(self, groups: list[Group]) -> Iterator[list[Group]]:
        for micro in micro_batches(groups, self.pace.groups_per_forward):
            # Few numbers of groups per shape, so that few graphs are captured.
            sizes = powers_of_two(len(micro)) if self._graphs is not None else [len(micro)]
            first = 0
            for size in sizes:
                yield micro[first : first + size]
                first += size

    def _pass(self, micro: list[Group], share: float) -> dict[str, Tensor]:
        images = [image for group in micro for image in group.images]
        targets = [target for group in micro for target in group.targets]
        with explained_lack_of_memory(micro, self.precision, self.world.device):
            if self._graphs is not None:
                return self._graphs(self.model, images, targets, share)
            return self._forward_backward(Inputs.of(self.model, images, targets), share)

    def _forward_backward(self, inputs: Inputs, share: float | Tensor) -> dict[str, Tensor]:
        """Add ``share`` of the inputs' gradients to the parameters'; the losses, detached."""
        with precision_context(self.precision, self.world.device):
            losses = self.model.losses(inputs.batch, inputs.boxes, inputs.labels)
        self.scaler.scale(reduce(torch.add, losses.values()) * share).backward()  # type: ignore[no-untyped-call]
        return {name: value.detach() for name, value in losses.items()}


def micro_batches(groups: list[Group], groups_per_forward: int) -> Iterator[list[Group]]:
    """Groups of one padded shape together, at most ``groups_per_forward``; shapes in the order of their first group."""
    if groups_per_forward == 1:  # in their own order
        yield from ([group] for group in groups)
        return
    alike: dict[tuple[tuple[int, int], int], list[Group]] = {}
    for group in groups:
        alike.setdefault((group.padded_shape, len(group.images)), []).append(group)
    for members in alike.values():
        for first in range(0, len(members), groups_per_forward):
            yield members[first : first + groups_per_forward]


def powers_of_two(number: int) -> list[int]:
    """The number as a sum of powers of two, the largest first: 7 -> [4, 2, 1]."""
    return [1 << bit for bit in reversed(range(number.bit_length())) if number >> bit & 1]
