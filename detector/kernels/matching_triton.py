"""Triton kernels that match anchors to boxes. N images, R anchors, G boxes of an image, padding included.

Every IoU has the bits of ``detector.model.assign.pairwise_iou`` on a CPU: the same float32 operations in the same
order, a division that is rounded correctly, and (the host's part) no fused multiply-add. Overlaps are not kept: they
are computed once for the largest of each box, and once more for the labels, where a matrix [N, G, R] would be written
and read.

Needs triton.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from drloss import labels

BACKGROUND: tl.constexpr = tl.constexpr(labels.BACKGROUND)
IGNORED: tl.constexpr = tl.constexpr(labels.IGNORED)


@triton.jit
def load_boxes(boxes: tl.tensor, index: tl.tensor, mask: tl.tensor) -> Any:
    """x1, y1, x2, y2 of some of [.., 4] boxes; where masked out, a box that overlaps nothing."""
    x1 = tl.load(boxes + index * 4, mask=mask, other=-1e8)
    y1 = tl.load(boxes + index * 4 + 1, mask=mask, other=-1e8)
    x2 = tl.load(boxes + index * 4 + 2, mask=mask, other=-1e8)
    y2 = tl.load(boxes + index * 4 + 3, mask=mask, other=-1e8)
    return x1, y1, x2, y2


@triton.jit
def count_boxes(labels: tl.tensor, G: tl.tensor, BOXES: tl.constexpr) -> Any:
    """Up to where an image's [G] labels are not all padding."""
    box = tl.arange(0, BOXES)
    label = tl.load(labels + box, mask=box < G, other=BACKGROUND)
    return tl.max(tl.where(label >= 0, box + 1, 0), axis=0)


@triton.jit
def overlap(box: tl.tensor, x1: tl.tensor, y1: tl.tensor, x2: tl.tensor, y2: tl.tensor, one: tl.tensor) -> Any:
    """IoU of the box at the pointer with each anchor, [ANCHORS]."""
    left, top, right, bottom = tl.load(box), tl.load(box + 1), tl.load(box + 2), tl.load(box + 3)
    width = tl.minimum(right, x2) - tl.maximum(left, x1) + one
    height = tl.minimum(bottom, y2) - tl.maximum(top, y1) + one
    intersection = tl.maximum(width, 0.0) * tl.maximum(height, 0.0)
    area = (right - left + one) * (bottom - top + one)
    return tl.div_rn(intersection, area + (x2 - x1 + one) * (y2 - y1 + one) - intersection)


@triton.jit(do_not_specialize=["one", "G"])
def largest_overlaps(
    anchors: tl.tensor,
    boxes: tl.tensor,
    labels: tl.tensor,
    largest: tl.tensor,
    one: tl.tensor,
    R: tl.tensor,
    G: tl.tensor,
    ANCHORS: tl.constexpr,
    BOXES: tl.constexpr,
) -> None:
    """largest [N, G] int32, 0 before: the bits of each box's largest IoU, in the order of the IoUs as none is < 0.

    The largest of integers is the same in whatever order programs come.
    """
    image = tl.program_id(1)
    anchor = tl.program_id(0) * ANCHORS + tl.arange(0, ANCHORS)
    x1, y1, x2, y2 = load_boxes(anchors, anchor, anchor < R)
    for g in range(count_boxes(labels + image * G, G, BOXES)):
        if tl.load(labels + image * G + g) >= 0:
            iou = overlap(boxes + (image * G + g) * 4, x1, y1, x2, y2, one)
            bits = tl.max(tl.where(anchor < R, iou, 0.0), axis=0).to(tl.int32, bitcast=True)
            if bits > 0:
                tl.atomic_max(largest + image * G + g, bits)


@triton.jit(do_not_specialize=["one", "G"])
def label_anchors(
    anchors: tl.tensor,
    boxes: tl.tensor,
    labels: tl.tensor,
    largest: tl.tensor,
    assigned: tl.tensor,
    matched: tl.tensor,
    foreground: tl.tensor,
    background: tl.tensor,
    one: tl.tensor,
    R: tl.tensor,
    G: tl.tensor,
    ANCHORS: tl.constexpr,
    BOXES: tl.constexpr,
    LOW_QUALITY: tl.constexpr,
) -> None:
    """assigned and matched, [N, R] int64, as ``detector.model.assign.assign_batch`` gives them."""
    image = tl.program_id(1)
    anchor = tl.program_id(0) * ANCHORS + tl.arange(0, ANCHORS)
    x1, y1, x2, y2 = load_boxes(anchors, anchor, anchor < R)
    best = tl.zeros([ANCHORS], tl.float32)
    which = tl.zeros([ANCHORS], tl.int32)
    claimed = tl.zeros([ANCHORS], tl.int32)
    label = tl.zeros([ANCHORS], tl.int64) + tl.load(labels + image * G)
    for g in range(count_boxes(labels + image * G, G, BOXES)):
        of_box = tl.load(labels + image * G + g)
        if of_box >= 0:
            iou = overlap(boxes + (image * G + g) * 4, x1, y1, x2, y2, one)
            if LOW_QUALITY:
                bits = iou.to(tl.int32, bitcast=True)
                claimed = tl.where((bits > 0) & (bits == tl.load(largest + image * G + g)), 1, claimed)
            better = iou > best  # so the first of equals
            which = tl.where(better, g, which)
            label = tl.where(better, of_box, label)
            best = tl.where(better, iou, best)
    unmatched = tl.where(best < background, BACKGROUND, IGNORED)
    positive = (best >= foreground) | (claimed > 0)
    place = image.to(tl.int64) * R + anchor
    tl.store(assigned + place, tl.where(positive, label, unmatched.to(tl.int64)), mask=anchor < R)
    tl.store(matched + place, which.to(tl.int64), mask=anchor < R)
