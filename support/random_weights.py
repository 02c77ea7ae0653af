"""Weights that can be made again from names and shapes alone, to compare two implementations of one network.

A trained checkpoint is hundreds of megabytes and proves no more about a forward pass than random numbers do, provided
that these reach every part of it: activations of order one through 101 layers, some hundred scores on both sides of
the threshold, boxes that overlap so that suppression has work. The rules go by the end of a name and know three naming
schemes: maskrcnn-benchmark, Detectron2, torchvision.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_NORM = re.compile(r"(bn\d|norm|downsample\.1)\.(?P<tensor>weight|bias|running_mean|running_var)$")
_LAST_NORM = re.compile(r"\.(?P<block>\d+)\.(bn3|conv3\.norm)\.weight$")
_CONSTANT = re.compile(r"(^|\.)cell_anchors\.\d+$")  # anchors that a network keeps among its buffers
_CLASSIFIER = re.compile(r"(cls_logits|cls_score)\.(weight|bias)$")
_BOXES = re.compile(r"(bbox_pred|bbox_reg)\.(weight|bias)$")

# Set by hand, on photographs of 256 pixels: logits of -9.4 +- 2.4, so that some hundred of a million scores pass 0.2
# and the best stay below 0.98, of which a tenth to a fifth is then suppressed; box deltas of +- 0.3 on every level.
_GAINS = {
    re.compile(r"stem\.conv1\.weight$"): 1.75 / 60.0,  # sees pixels of 0 to 255; torchvision's "body.conv1" does not
    re.compile(r"(\.conv[12]|_tower\.\d|_subnet\.\d|_head\.conv\.\d\.0)\.weight$"): 1.75,
    re.compile(r"(fpn_layer2|fpn_output3|layer_blocks\.0\.0)\.weight$"): 0.5,
    re.compile(r"(fpn_layer3|fpn_output4|layer_blocks\.1\.0)\.weight$"): 0.6,
    re.compile(r"(fpn_layer4|fpn_output5|layer_blocks\.2\.0)\.weight$"): 0.9,
    re.compile(r"p6\.weight$"): 1.2,
    re.compile(r"p7\.weight$"): 4.5,
    re.compile(r"(cls_logits|cls_score)\.weight$"): 1.0,
    re.compile(r"(bbox_pred|bbox_reg)\.weight$"): 0.3,
}
_LOGIT_BIAS = (-9.2, 2.0)  # mean and spread over the classes
_NUM_ANCHORS = 9
_ALIKE = 0.8  # the part of a class's variance that its nine anchors share
# maskrcnn-benchmark multiplies its box targets by these; the other two by one.
_BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def random_state(shapes: Mapping[str, Sequence[int]], *, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """A float32 array for every name of ``shapes``, each a function of its name, its shape and ``seed`` only.

    Anchors among the names are left out: they are constants of the network, no weights.

    Raises:
        ValueError: a name that no rule knows.
    """
    return {
        name: _tensor(name, tuple(shape), seed).astype(np.float32)
        for name, shape in shapes.items()
        if not _CONSTANT.search(name)
    }


def _tensor(name: str, shape: tuple[int, ...], seed: int) -> Array:
    random = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
    if found := _NORM.search(name):
        return _norm(name, found["tensor"], shape, random)
    if name.endswith(".weight") and len(shape) == 4:
        return _filters(name, shape, random)
    if name.endswith(".bias") and len(shape) == 1:
        return _biases(name, shape, random)
    raise ValueError(f"No rule for the tensor {name!r} of shape {shape}.")


def _norm(name: str, tensor: str, shape: tuple[int, ...], random: np.random.RandomState) -> Array:
    """A frozen batch norm close to the identity, and nowhere equal to it."""
    if tensor == "weight":
        weight = random.uniform(0.7, 1.3, shape)
        if last := _LAST_NORM.search(name):
            # Weak, or the residual stream would grow without end; weaker in the long stage of a deep network.
            weight *= 0.5 if int(last["block"]) < 6 else 0.15
        return weight
    if tensor == "running_var":
        return random.uniform(0.7, 1.3, shape)
    return random.normal(0.0, 0.1, shape)


def _filters(name: str, shape: tuple[int, ...], random: np.random.RandomState) -> Array:
    """Convolution filters [out, in, height, width] whose output is about as large as the input, or as is wanted."""
    filters: Array = _normal(name, shape, random)
    # Otherwise the mean of the rectified inputs drowns what differs between places, layer by layer.
    filters -= filters.mean(axis=(1, 2, 3), keepdims=True)
    filters *= _gain(name) / math.sqrt(math.prod(shape[1:]))
    if _BOXES.search(name):
        filters *= _box_weights(name, shape[0])[:, None, None, None]
    return filters


def _gain(name: str) -> float:
    """Output over input of a convolution; 1.75 and 1.25 make up for the mean taken off, with and without a ReLU."""
    for pattern, gain in _GAINS.items():
        if pattern.search(name):
            return gain
    return 1.25


def _biases(name: str, shape: tuple[int, ...], random: np.random.RandomState) -> Array:
    biases: Array = _normal(name, shape, random)
    if _CLASSIFIER.search(name):
        mean, spread = _LOGIT_BIAS
        biases *= spread
        biases += mean
        return biases
    biases *= 0.1
    if _BOXES.search(name):
        biases *= _box_weights(name, shape[0])
    return biases


def _normal(name: str, shape: tuple[int, ...], random: np.random.RandomState) -> Array:
    """Standard normal numbers. A classifier's channels of one class are alike, so that boxes of one class pile up.

    Its channels run over the anchors of a place, within an anchor over classes.
    """
    own: Array = random.normal(0.0, 1.0, shape)
    if _CLASSIFIER.search(name):
        shared = random.normal(0.0, math.sqrt(_ALIKE), (shape[0] // _NUM_ANCHORS, *shape[1:]))
        own *= math.sqrt(1.0 - _ALIKE)
        own += np.concatenate([shared] * _NUM_ANCHORS)
    return own


def _box_weights(name: str, channels: int) -> Array:
    """The factor of each box channel: (dx, dy, dw, dh) repeats."""
    weights = _BOX_WEIGHTS if "rpn.head." in name else (1.0, 1.0, 1.0, 1.0)
    return np.tile(weights, channels // 4)
