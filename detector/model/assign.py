"""Which ground-truth box an anchor is trained on. N images, R anchors, G boxes of one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from detector.geometry.boxes import PIXEL
from detector.runs.job import BoxConvention, MatchSettings
from drloss.labels import BACKGROUND, IGNORED


def assign_anchors(
    anchors: Tensor, boxes: Tensor, labels: Tensor, settings: MatchSettings, convention: BoxConvention
) -> tuple[Tensor, Tensor]:
    """Label every anchor of one image by its best box (RetinaNet, section 4; low-quality: Faster R-CNN, 3.1.2).

    anchors: [R, 4], boxes: [G, 4] xyxy pixels; labels: [G] int64, 0..K-1.
    Returns the anchors' labels [R] int64 (a class, BACKGROUND or IGNORED) and the index [R] int64 of the box that each
    overlaps most (the first of equals), which matters only where the label is a class.

    With ``allow_low_quality`` every box also claims the anchors that overlap it most, ties included. A claimed anchor
    is positive, but learns the box that it overlaps most itself, which may not be the one that claimed it. A box that
    overlaps no anchor claims none (in the base codebase it claims every anchor that it does not touch; anchors of
    stride 8 leave no room for such a box).
    Without boxes every anchor is background. Nothing here waits for the device.
    """
    assigned, matched = assign_batch(anchors, boxes[None], labels[None], settings, convention)
    return assigned[0], matched[0]


@torch.no_grad()
def assign_batch(
    anchors: Tensor, boxes: Tensor, labels: Tensor, settings: MatchSettings, convention: BoxConvention
) -> tuple[Tensor, Tensor]:
    """``assign_anchors`` for N images at once -> labels and matched boxes, [N, R] int64 each.

    boxes: [N, G, 4] and labels: [N, G], as ``padded_targets`` makes them: a box with a negative label is padding. On a
    CPU this is done by compiled loops of one thread, without a [G, R] matrix; elsewhere by ``assign_padded``.
    """
    shape = labels.shape[0], anchors.shape[0]
    if labels.shape[1] == 0:
        return labels.new_full(shape, BACKGROUND), labels.new_zeros(shape)
    if anchors.device.type != "cpu":
        return assign_padded(anchors, boxes, labels, settings, convention)
    from detector.model import cpu_loops  # compiling is slow to import, and only a CPU needs it

    thresholds = (np.float32(settings.foreground_iou), np.float32(settings.background_iou))
    rule = (*thresholds, np.float32(PIXEL[convention]), settings.allow_low_quality)
    arrays = [array.contiguous().numpy() for array in (anchors.float(), boxes.float(), labels)]
    assigned, matched = cpu_loops.assign(arrays[0], arrays[1], arrays[2], rule)
    return torch.from_numpy(assigned), torch.from_numpy(matched)


def assign_padded(
    anchors: Tensor, boxes: Tensor, labels: Tensor, settings: MatchSettings, convention: BoxConvention
) -> tuple[Tensor, Tensor]:
    """``assign_batch`` by matrices of [N, G, R], G at least 1."""
    iou = pairwise_iou(boxes, anchors, convention).masked_fill_((labels < 0)[..., None], 0)
    best_iou, matched = iou.max(dim=1)
    positive = best_iou >= settings.foreground_iou
    if settings.allow_low_quality:
        best_of_box = iou.amax(dim=2, keepdim=True)
        positive = positive | ((iou == best_of_box) & (iou > 0)).any(dim=1)
    unmatched = torch.where(best_iou < settings.background_iou, BACKGROUND, IGNORED)
    return torch.where(positive, labels.gather(1, matched), unmatched), matched


def padded_targets(targets: Sequence[Mapping[str, Tensor]], like: Tensor, capacity: int = 1) -> tuple[Tensor, Tensor]:
    """Boxes [N, G, 4] of the dtype and device of ``like``, and labels [N, G].

    G is the largest count, at least ``capacity``. Where an image has fewer, the rest are boxes of one pixel with the
    label BACKGROUND.
    """
    shape = len(targets), max(capacity, *(len(target["labels"]) for target in targets))
    boxes = like.new_tensor([0, 0, 1, 1]).repeat(*shape, 1)
    labels = torch.full(shape, BACKGROUND, device=like.device)
    for target, image_boxes, image_labels in zip(targets, boxes, labels, strict=True):
        image_boxes[: len(target["boxes"])].copy_(target["boxes"], non_blocking=True)
        image_labels[: len(target["labels"])].copy_(target["labels"], non_blocking=True)
    return boxes, labels


def pairwise_iou(boxes: Tensor, anchors: Tensor, convention: BoxConvention) -> Tensor:
    """Intersection over union of boxes [..., G, 4] and anchors [R, 4], xyxy with positive areas -> [..., G, R].

    Modern: the values of torchvision's box_iou to the last bit. That works on [G, R, 2] arrays, which takes two to four
    times as long on a CPU, and twice the memory.
    """
    one = PIXEL[convention]
    x1, y1, x2, y2 = boxes[..., None].unbind(-2)  # [..., G, 1] each
    anchor_x1, anchor_y1, anchor_x2, anchor_y2 = anchors.T.contiguous().unbind(0)  # [R] each
    width = (torch.minimum(x2, anchor_x2) - torch.maximum(x1, anchor_x1)).add_(one).clamp_(min=0)
    height = (torch.minimum(y2, anchor_y2) - torch.maximum(y1, anchor_y1)).add_(one).clamp_(min=0)
    intersection = width.mul_(height)
    area = (x2 - x1 + one) * (y2 - y1 + one)
    anchor_area = (anchor_x2 - anchor_x1 + one) * (anchor_y2 - anchor_y1 + one)
    return intersection / (area + anchor_area - intersection)
