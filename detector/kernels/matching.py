"""Matching of anchors and boxes on a GPU: two launches, and nothing of the size of boxes times anchors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_ANCHORS = 512
# No fused multiply-add: it would round once where a CPU rounds twice.
_OPTIONS: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": False}


def match(
    anchors: Tensor,
    boxes: Tensor,
    labels: Tensor,
    *,
    foreground_iou: float,
    background_iou: float,
    allow_low_quality: bool,
    one: float,
) -> tuple[Tensor, Tensor]:
    """Labels and matched boxes of the anchors, [N, R] int64: the values of ``detector.model.assign.assign_batch``.

    anchors: [R, 4] float32; boxes: [N, G, 4] float32 and labels: [N, G] int64, negative for padding, G at least 1; one:
    what is added to x2 - x1 to get a width. The work depends on how many boxes there are, not on G.
    """
    from detector.kernels import matching_triton as kernels

    (num_images, num_boxes), num_anchors = labels.shape, anchors.shape[0]
    anchors, boxes, labels = anchors.contiguous(), boxes.contiguous(), labels.contiguous()
    assigned, matched = (labels.new_empty((num_images, num_anchors)) for _ in range(2))
    largest = labels.new_zeros((num_images, num_boxes if allow_low_quality else 0), dtype=torch.int32)
    grid = -(-num_anchors // _ANCHORS), num_images
    sizes = num_anchors, num_boxes
    tile = {"ANCHORS": _ANCHORS, "BOXES": 1 << (num_boxes - 1).bit_length()}
    with torch.cuda.device(labels.get_device()):
        if allow_low_quality:
            kernels.largest_overlaps[grid](anchors, boxes, labels, largest, float(one), *sizes, **tile, **_OPTIONS)
        kernels.label_anchors[grid](
            *(anchors, boxes, labels, largest, assigned, matched, foreground_iou, background_iou, float(one)),
            *sizes,
            **tile,
            LOW_QUALITY=allow_low_quality,
            **_OPTIONS,
        )
    return assigned, matched
