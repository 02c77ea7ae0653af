"""Passes as CUDA graphs: one graph for each shape of a pass, all in one pool of memory.

A graph replays the kernels of a pass on the same memory. So its inputs are copied to one place before each replay, and
what it returns is used before the next one. N images of a pass, G boxes of an image.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from detector.geometry.padding import padded_shape
from detector.model.retinanet import RetinaNet, Target

logger = logging.getLogger(__name__)

# COCO has at most 93 boxes per image, and 7 in the mean.
FEWEST_BOXES = 64
# Shapes beyond these are rare. The graph that was replayed longest ago makes room.
MOST_GRAPHS = 192


class Shape(NamedTuple):
    """What a graph is captured for: images, padded height and width, and room for boxes per image."""

    images: int
    height: int
    width: int
    boxes: int

    @classmethod
    def of(cls, images: Sequence[Tensor], targets: Sequence[Target]) -> Shape:
        """Room for a power of two of boxes."""
        boxes = max(FEWEST_BOXES, *(len(target["labels"]) for target in targets))
        height, width = padded_shape([(image.shape[-2], image.shape[-1]) for image in images])
        return cls(len(images), height, width, 1 << (boxes - 1).bit_length())


@dataclass(frozen=True)
class Inputs:
    """What a pass reads: normalised images [N, 3, H, W], boxes [N, G, 4] and labels [N, G] as padded targets."""

    batch: Tensor
    boxes: Tensor
    labels: Tensor

    @classmethod
    def of(cls, model: RetinaNet, images: Sequence[Tensor], targets: Sequence[Target]) -> Inputs:
        """In new memory."""
        return cls(model.normalized_batch(images), *model.padded_targets(targets, num_images=len(images)))


@dataclass(frozen=True)
class Captured:
    """A graph, the memory that it reads, and the losses that it writes.

    anchors: the model shares them and forgets those of rare shapes; a graph's must stay.
    """

    graph: torch.cuda.CUDAGraph
    inputs: Inputs
    anchors: tuple[Tensor, ...]
    losses: dict[str, Tensor]


class PassGraphs:
    """Runs passes: of a new shape as they are, of a shape that was met before as a graph.

    In the first pass of a shape cuDNN plans its convolutions and Triton compiles its kernels, which cannot be captured.
    Where a pass cannot be captured at all (a loss of another package that waits for the device), all passes are run as
    they are, and the log says so once.
    """

    def __init__(self, run: Callable[[Inputs, Tensor], dict[str, Tensor]], device: torch.device) -> None:
        """run: forward and backward; adds to the parameters' gradients, which must stay where they are."""
        self._run = run
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._share = torch.ones((), device=device)
        self._pixels = torch.empty(0, device=device)
        self._met: set[Shape] = set()
        self._graphs: OrderedDict[Shape, Captured] = OrderedDict()
        self._can_capture = True

    def __call__(
        self, model: RetinaNet, images: Sequence[Tensor], targets: Sequence[Target], share: float
    ) -> dict[str, Tensor]:
        """One pass. Its losses are overwritten by later passes."""
        shape = Shape.of(images, targets)
        captured = self._graphs.get(shape)
        inputs = captured.inputs if captured is not None else self._inputs(shape, model.mean.dtype)
        model.normalized_batch(images, out=inputs.batch)
        boxes, labels = model.padded_targets(targets, num_images=len(images), capacity=shape.boxes)
        inputs.boxes.copy_(boxes)
        inputs.labels.copy_(labels)
        self._share.fill_(share)
        if captured is None and shape in self._met and self._can_capture:
            captured = self._capture(shape, inputs, model.anchors(shape.height, shape.width))
        self._met.add(shape)
        if captured is None:
            return self._run(inputs, self._share)
        self._graphs.move_to_end(shape)
        captured.graph.replay()
        return captured.losses

    def _inputs(self, shape: Shape, dtype: torch.dtype) -> Inputs:
        """Memory for the inputs of a shape. All shapes share that of the images: they are never there at once."""
        count = shape.images * shape.height * shape.width * 3
        if self._pixels.numel() < count or self._pixels.dtype != dtype:
            # Graphs that were captured with the smaller one keep it.
            self._pixels = torch.empty(count, dtype=dtype, device=self._device)
        pixels = self._pixels[:count].view(shape.images, shape.height, shape.width, 3)
        boxes = torch.empty(shape.images, shape.boxes, 4, device=self._device)
        labels = torch.empty(shape.images, shape.boxes, dtype=torch.int64, device=self._device)
        return Inputs(pixels.permute(0, 3, 1, 2), boxes, labels)

    def _capture(self, shape: Shape, inputs: Inputs, anchors: tuple[Tensor, ...]) -> Captured | None:
        """Record the pass without running it; None where it cannot be recorded."""
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads (the loader's, the process group's) may call the driver meanwhile.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                losses = self._run(inputs, self._share)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._can_capture = False
            logger.warning("passes are not captured as CUDA graphs from here on, which is slower: %s", error)
            return None
        if len(self._graphs) >= MOST_GRAPHS:
            self._graphs.popitem(last=False)
        self._graphs[shape] = Captured(graph, inputs, anchors, losses)
        return self._graphs[shape]
