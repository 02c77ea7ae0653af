"""From the head's outputs to detections. R_l anchors of level l, K classes, D candidates of one image.

Boxes are xyxy pixels of the image as the network saw it, in its box convention. Everything here works on one image
alone, so its detections do not depend on the images beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from detector.box_coder import Weights, decode
from detector.boxes import clipped, to_edges
from detector.job import BoxConvention, TestSettings


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

    cls_logits: [R_l, K], bbox_regression: [R_l, 4], anchors: [R_l, 4], a sequence over levels each; image_shape: (H, W)
    without padding, to which boxes are clipped. Order: by level, then falling score. A candidate whose score or box is
    not finite is dropped: NMS and the COCO evaluation would take it silently.
    """
    boxes, scores, labels = [], [], []
    for level_logits, level_deltas, level_anchors in zip(cls_logits, bbox_regression, anchors, strict=True):
        level_scores = level_logits.float().sigmoid().flatten()
        # A NaN is not above the threshold. Selecting before topk keeps it off the millions of low scores.
        (entry,) = torch.where(level_scores > test.score_threshold)
        top = level_scores[entry].topk(min(test.candidates_per_level, entry.numel()))
        entry = entry[top.indices]
        anchor = entry // level_logits.shape[-1]
        boxes.append(decode(level_deltas[anchor].float(), level_anchors[anchor], box_weights, convention))
        scores.append(top.values)
        labels.append(entry % level_logits.shape[-1])
    candidates = Candidates(torch.cat(boxes), torch.cat(scores), torch.cat(labels))
    finite = candidates.boxes.isfinite().all(dim=1)
    kept = Candidates(*(field[finite] for field in candidates))
    return kept._replace(boxes=clipped(kept.boxes, image_shape, convention))


def merge_candidates(
    candidates: Sequence[Candidates], test: TestSettings, convention: BoxConvention
) -> dict[str, Tensor]:
    """Detections of one image from its candidates of one or several test scales, in one coordinate system.

    NMS within each class at IoU > ``nms_iou``, then the best ``detections_per_image`` ->
    {"boxes": [D, 4], "scores": [D], "labels": [D]}, scores falling.
    """
    boxes, scores, labels = (torch.cat(field) for field in zip(*candidates, strict=True))
    # batched_nms shifts boxes to tell classes apart: in float32, 80 classes of 1333 pixels would be 1/128 pixel off.
    edges = to_edges(boxes.double(), convention)
    keep = batched_nms(edges, scores.double(), labels, test.nms_iou)[: test.detections_per_image]
    return {"boxes": boxes[keep], "scores": scores[keep], "labels": labels[keep]}
