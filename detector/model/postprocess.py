"""From the head's outputs to detections. R_l anchors of level l, K classes, D candidates of one image.

Boxes are xyxy pixels of the image as the network saw it, in its box convention. Everything here works on one image
alone, so its detections do not depend on the images beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms

from detector.geometry.box_coder import Weights, decode
from detector.geometry.boxes import clipped, to_edges
from detector.runs.job import BoxConvention, TestSettings


class Candidates(NamedTuple):
    """Scored boxes before NMS: boxes [D, 4], scores [D] in 0..1, labels [D] int64; float32."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def image_candidates(
    cls_logits: Sequence[Tensor],
    bbox_regression: Sequence[Tensor],
    anchors: Sequence[Tensor],
    *,
    image_shape: tuple[int, int],
    test: TestSettings,
    box_weights: Weights,
    convention: BoxConvention,
) -> Candidates:
    """One image: the best ``candidates_per_level`` (anchor, class) scores over the threshold of each level.

    cls_logits: [R_l, K], bbox_regression: [R_l, 4], anchors: [R_l, 4], each a sequence over levels; image_shape: (H, W)
    without padding, to which boxes are clipped. Order: by level, then falling score. A candidate whose score or box is
    not finite is dropped: NMS and the COCO evaluation would take it silently.
    """
    logits, deltas, near, labels = [], [], [], []
    for level_logits, level_deltas, level_anchors in zip(cls_logits, bbox_regression, anchors, strict=True):
        values, entry = best_entries(level_logits.flatten(), test.candidates_per_level, _logit(test.score_threshold))
        anchor = entry // level_logits.shape[-1]
        logits.append(values)
        deltas.append(level_deltas[anchor])
        near.append(level_anchors[anchor])
        labels.append(entry % level_logits.shape[-1])
    scores = torch.cat(logits).sigmoid()
    boxes = decode(torch.cat(deltas).float(), torch.cat(near), box_weights, convention)
    kept = (scores > test.score_threshold) & boxes.isfinite().all(dim=1)
    return Candidates(clipped(boxes[kept], image_shape, convention), scores[kept], torch.cat(labels)[kept])


def best_entries(logits: Tensor, count: int, least: float) -> tuple[Tensor, Tensor]:
    """The ``count`` largest of logits [M], in falling order, and their indices.

    Where fewer are above ``least``, a CPU returns fewer, another device -inf in their place. A NaN counts as not above.
    Logits are in the order of their scores, so that only the chosen ones need a sigmoid. Of equal logits a CPU takes
    the first, another device any.
    """
    logits = logits.float()
    if has_loops(logits):
        from detector.model import cpu_loops  # compiling is slow to import, and only a CPU needs it

        found = cpu_loops.best_entries(logits.detach().contiguous().numpy(), np.float32(least), count)
        places = torch.from_numpy(found)
        values, order = logits[places].sort(descending=True, stable=True)
        return values[:count], places[order[:count]]
    # To return only those above ``least``, the device would have to be waited for.
    values, places = torch.where(logits > least, logits, -torch.inf).topk(min(count, len(logits)))
    return values, places


def merge_candidates(
    candidates: Sequence[Candidates], test: TestSettings, convention: BoxConvention
) -> dict[str, Tensor]:
    """Detections of one image from its candidates of one or several test scales, in one coordinate system.

    NMS within each class at IoU > ``nms_iou``, then the best ``detections_per_image`` ->
    {"boxes": [D, 4], "scores": [D], "labels": [D]}, scores falling.
    """
    boxes, scores, labels = (torch.cat(field) for field in zip(*candidates, strict=True))
    scores, order = scores.sort(descending=True, stable=True)
    boxes, labels = boxes[order], labels[order]
    # In float64, because batched_nms moves the boxes of each class apart: with 80 classes and 1333 pixels a float32
    # would be off by 1/128 pixel.
    edges = to_edges(boxes.double(), convention)
    if has_loops(edges):
        from detector.model import cpu_loops

        arrays = edges.detach().numpy(), labels.numpy()
        keep = torch.from_numpy(cpu_loops.suppress(*arrays, test.nms_iou, test.detections_per_image))
    else:
        keep = batched_nms(edges, scores.double(), labels, test.nms_iou)[: test.detections_per_image]
    return {"boxes": boxes[keep], "scores": scores[keep], "labels": labels[keep]}


def has_loops(values: Tensor) -> bool:
    """Whether compiled loops read these values: on a CPU. Elsewhere torch's functions do the same."""
    return values.device.type == "cpu"


def _logit(score: float) -> float:
    """A logit just below that of ``score`` (0..1), by more than a float32 sigmoid can be off."""
    if not 0 < score < 1:
        return -math.inf if score <= 0 else math.inf
    return math.log(score / (1 - score)) - 1e-3 - 1e-6 / (1 - score)
