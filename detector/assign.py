"""Which ground-truth box an anchor is trained on. R anchors, G boxes of one image."""

from __future__ import annotations

import torch
from torch import Tensor

from detector.boxes import PIXEL
from detector.job import BoxConvention, MatchSettings
from drloss import BACKGROUND, IGNORED


@torch.no_grad()
def assign_anchors(
    anchors: Tensor, boxes: Tensor, labels: Tensor, settings: MatchSettings, convention: BoxConvention
) -> tuple[Tensor, Tensor]:
    """Label every anchor by its best box (RetinaNet, section 4; low-quality matches as in Faster R-CNN, 3.1.2).

    anchors: [R, 4], boxes: [G, 4] xyxy pixels; labels: [G] int64, 0..K-1.
    Returns the anchors' labels [R] int64 (a class, BACKGROUND or IGNORED) and the index [R] int64 of the box that each
    overlaps most (the first of equals), which has a meaning where the label is a class.

    With ``allow_low_quality`` every box also claims the anchors that no other anchor overlaps it more than, ties
    included. A claimed anchor is positive but learns the box that it overlaps most itself, maybe not its claimant's.
    A box that overlaps no anchor at all claims none (in the base codebase it claims all anchors that it does not touch,
    but anchors of stride 8 leave no such place).
    No boxes: every anchor is background. Nothing here waits for the device.
    """
    num_anchors, num_boxes = anchors.shape[0], boxes.shape[0]
    if num_boxes == 0:
        return labels.new_full((num_anchors,), BACKGROUND), labels.new_zeros(num_anchors)
    iou = pairwise_iou(boxes, anchors, convention)
    best_iou, matched = iou.max(dim=0)
    positive = best_iou >= settings.foreground_iou
    if settings.allow_low_quality:
        best_of_box = iou.amax(dim=1, keepdim=True)
        positive = positive | ((iou == best_of_box) & (iou > 0)).any(dim=0)
    unmatched = torch.where(best_iou < settings.background_iou, BACKGROUND, IGNORED)
    return torch.where(positive, labels[matched], unmatched), matched


def pairwise_iou(boxes: Tensor, anchors: Tensor, convention: BoxConvention) -> Tensor:
    """Intersection over union of boxes [G, 4] and anchors [R, 4], xyxy with positive areas -> [G, R].

    Modern: the values of torchvision's box_iou to the last bit. That one works on [G, R, 2] arrays, whose short rows
    cost two to four times the time on a CPU, and twice the memory.
    """
    one = PIXEL[convention]
    x1, y1, x2, y2 = boxes[:, :, None].unbind(1)  # [G, 1] each
    anchor_x1, anchor_y1, anchor_x2, anchor_y2 = anchors.T.contiguous().unbind(0)  # [R] each
    width = (torch.minimum(x2, anchor_x2) - torch.maximum(x1, anchor_x1)).add_(one).clamp_(min=0)
    height = (torch.minimum(y2, anchor_y2) - torch.maximum(y1, anchor_y1)).add_(one).clamp_(min=0)
    intersection = width.mul_(height)
    area = (x2 - x1 + one) * (y2 - y1 + one)
    anchor_area = (anchor_x2 - anchor_x1 + one) * (anchor_y2 - anchor_y1 + one)
    return intersection / (area + anchor_area - intersection)
