"""The two conventions of what a box's corners mean, and everything that differs between them.

legacy (Detectron, maskrcnn-benchmark): corners are pixels, and a box of w pixels spans x1 .. x1 + w - 1.
modern (torchvision, Detectron2): corners are edges, and a box of w pixels spans x1 .. x1 + w.

Boxes are xyxy. Files, drawings and scores always have (x, y, width, height) or edges.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.runs.job import BoxConvention

# What is added to x2 - x1 to get a width.
PIXEL: Final[dict[BoxConvention, int]] = {"legacy": 1, "modern": 0}


def from_edges(boxes: NDArray[np.float64], convention: BoxConvention) -> NDArray[np.float64]:
    """Boxes (x, y, x + w, y + h) -> corners of ``convention``, [G, 4]; a side below one pixel becomes x2 = x1."""
    corners = boxes.copy()
    corners[:, 2:] = np.maximum(boxes[:, 2:] - PIXEL[convention], boxes[:, :2])
    return corners


def to_edges(boxes: Tensor, convention: BoxConvention) -> Tensor:
    """Corners [..., 4] of ``convention`` -> (x, y, x + w, y + h)."""
    return boxes + boxes.new_tensor([0, 0, PIXEL[convention], PIXEL[convention]])


def mirrored(boxes: Tensor, width: int, convention: BoxConvention) -> Tensor:
    """Boxes [D, 4] in a horizontally flipped image of ``width`` pixels."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    right = width - PIXEL[convention]
    return torch.stack([right - x2, y1, right - x1, y2], dim=-1)


def clipped(boxes: Tensor, image_shape: tuple[int, int], convention: BoxConvention) -> Tensor:
    """Boxes [D, 4] cut to an image of (H, W) pixels."""
    height, width = (side - PIXEL[convention] for side in image_shape)
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)], dim=-1)


def paired_iou(boxes: Tensor, others: Tensor, convention: BoxConvention) -> Tensor:
    """Intersection over union, box by box: [..., 4] and [..., 4], xyxy -> [...]; 0 for boxes without an area."""
    one = PIXEL[convention]
    sides = (torch.minimum(boxes[..., 2:], others[..., 2:]) - torch.maximum(boxes[..., :2], others[..., :2])) + one
    intersection = sides.clamp(min=0).prod(dim=-1)
    area, other_area = ((corners[..., 2:] - corners[..., :2] + one).prod(dim=-1) for corners in (boxes, others))
    union = area + other_area - intersection
    return torch.where(union > 0, intersection / union, 0.0)


def trainable_corners(
    boxes: NDArray[np.float64], width: int, height: int, convention: BoxConvention
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Annotated boxes (x, y, x + w, y + h) of an image -> corners cut to it [G, 4], and which keep an area [G].

    As in the base codebase: cut in the image's own pixels, before any resize; x2 > x1 and y2 > y1 are kept, which in
    the legacy convention leaves out boxes of one pixel.
    """
    corners = from_edges(boxes, convention)
    limit = np.array([width, height, width, height]) - PIXEL[convention]
    corners = np.clip(corners, 0, limit)
    kept: NDArray[np.bool_] = np.all(corners[:, 2:] > corners[:, :2], axis=1)
    return corners, kept
