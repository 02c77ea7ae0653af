"""The order of a location's anchors in a predictor's channels.

A is the number of anchors per location; each has ``channels`` (K classes or 4 deltas) side by side. Here, in
maskrcnn-benchmark and in torchvision they are ordered by aspect ratio, then scale; in Detectron2 by scale, then ratio.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor

from detector.errors import WeightsError

NUM_RATIOS: Final = 3  # in every configuration of these projects


def to_ratio_major(tensor: Tensor, channels: int, num_anchors: int, where: str) -> Tensor:
    """From Detectron2's order to ours: [A * channels, ...] -> same shape. Raises WeightsError unless 3 divides A."""
    scales = _num_scales(num_anchors, where)
    by_anchor = tensor.reshape(scales, NUM_RATIOS, channels, *tensor.shape[1:])
    return by_anchor.transpose(0, 1).reshape(tensor.shape).contiguous()


def to_scale_major(tensor: Tensor, channels: int, num_anchors: int, where: str) -> Tensor:
    """Inverse of ``to_ratio_major``."""
    scales = _num_scales(num_anchors, where)
    by_anchor = tensor.reshape(NUM_RATIOS, scales, channels, *tensor.shape[1:])
    return by_anchor.transpose(0, 1).reshape(tensor.shape).contiguous()


def _num_scales(num_anchors: int, where: str) -> int:
    if num_anchors % NUM_RATIOS:
        raise WeightsError(f"{where} has {num_anchors} anchors per location, not a multiple of {NUM_RATIOS} ratios.")
    return num_anchors // NUM_RATIOS
