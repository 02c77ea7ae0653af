"""Boxes as deltas to anchors (R-CNN, appendix C): ``(dx, dy) = shift / size``, ``(dw, dh) = log size ratio``, weighted.

The only place that turns corners into centre and size, and back.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from detector.geometry.boxes import PIXEL
from detector.runs.job import BoxConvention

Weights = tuple[float, float, float, float]

# exp() of a decoded delta is at most 1000 / 16: a 16-pixel anchor grows to 1000 pixels, never to infinity.
MAX_LOG_RATIO = math.log(1000.0 / 16)


def encode(boxes: Tensor, anchors: Tensor, weights: Weights, convention: BoxConvention) -> Tensor:
    """Deltas that take ``anchors`` to ``boxes``.

    boxes, anchors: [..., 4] xyxy with positive sides, broadcast against each other -> [..., 4] (dx, dy, dw, dh).
    """
    x, y, w, h = _centre_and_size(boxes, convention)
    anchor_x, anchor_y, anchor_w, anchor_h = _centre_and_size(anchors, convention)
    weight_x, weight_y, weight_w, weight_h = weights
    return torch.stack(
        (
            weight_x * (x - anchor_x) / anchor_w,
            weight_y * (y - anchor_y) / anchor_h,
            weight_w * torch.log(w / anchor_w),
            weight_h * torch.log(h / anchor_h),
        ),
        dim=-1,
    )


def decode(deltas: Tensor, anchors: Tensor, weights: Weights, convention: BoxConvention) -> Tensor:
    """Inverse of ``encode``: deltas [..., 4], anchors [..., 4] -> boxes [..., 4] xyxy.

    dw and dh, divided by their weights, are at most ``MAX_LOG_RATIO``. A legacy x2 is one pixel before the edge.
    """
    one = PIXEL[convention]
    dx, dy, dw, dh = deltas.unbind(-1)
    weight_x, weight_y, weight_w, weight_h = weights
    anchor_x, anchor_y, anchor_w, anchor_h = _centre_and_size(anchors, convention)
    x = anchor_x + dx / weight_x * anchor_w
    y = anchor_y + dy / weight_y * anchor_h
    half_w = 0.5 * anchor_w * torch.exp((dw / weight_w).clamp(max=MAX_LOG_RATIO))
    half_h = 0.5 * anchor_h * torch.exp((dh / weight_h).clamp(max=MAX_LOG_RATIO))
    return torch.stack((x - half_w, y - half_h, x + half_w - one, y + half_h - one), dim=-1)


def _centre_and_size(boxes: Tensor, convention: BoxConvention) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """[..., 4] xyxy -> centre x, centre y (of the edges), width, height, each [...]."""
    one = PIXEL[convention]
    x1, y1, x2, y2 = boxes.unbind(-1)
    width, height = x2 - x1 + one, y2 - y1 + one
    return x1 + 0.5 * width, y1 + 0.5 * height, width, height
