"""The detector's inner loops on a CPU, compiled at first use and cached on disk.

All of them must round exactly as torch does: no fused multiply-add, no reordered sum.
N images, R anchors, G boxes of an image (padding included), D candidates of one image, M logits of one level.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from drloss.numba_cache import cached_njit

Array: TypeAlias = NDArray[Any]

CHUNK = 1024  # anchors at a time: their columns and overlaps stay in the processor's cache
RUN = 64  # logits that are looked at together

_BACKGROUND, _IGNORED = -1, -2
_ZERO, _APART = np.float32(0), np.float32(2)  # boxes this many pixels apart do not overlap, however it is rounded

_kernel = cached_njit(error_model="numpy", nogil=True)
# Without NaN, minimum and maximum are one packed instruction each.
_finite_kernel = cached_njit(fastmath={"nnan", "nsz"}, error_model="numpy", nogil=True)


@_finite_kernel
def assign(anchors: Array, boxes: Array, box_labels: Array, rule: tuple[Any, Any, Any, bool]) -> tuple[Array, Array]:
    """Labels and matched boxes, [N, R] int64 each, of all images' anchors: ``assign.assign_padded``, bit by bit.

    anchors: [R, 4] float32; boxes: [N, G, 4] float32; box_labels: [N, G] int64, negative for padding. rule:
    foreground IoU, background IoU and what is added to x2 - x1, as float32, and whether low-quality matches count.
    """
    foreground, background, one, low_quality = rule
    (num_images, num_boxes), num_anchors = box_labels.shape, anchors.shape[0]
    labels, matched = np.empty((num_images, num_anchors), np.int64), np.empty((num_images, num_anchors), np.int64)
    largest = np.zeros((num_images, num_boxes, -(-num_anchors // CHUNK)), np.int32)  # of each box in each chunk
    columns, iou = np.empty((5, CHUNK), np.float32), np.empty(CHUNK, np.float32)
    best, which = np.empty(CHUNK, np.float32), np.empty(CHUNK, np.int32)
    for chunk in range(largest.shape[2]):
        first, size = chunk * CHUNK, min(CHUNK, num_anchors - chunk * CHUNK)
        left, top, right, bottom = _load(anchors[first : first + size], one, columns)
        for n in range(num_images):
            best[:size], which[:size] = _ZERO, 0
            for g in range(num_boxes):
                x1, y1, x2, y2 = boxes[n, g]
                beside = x2 + _APART < left or y2 + _APART < top or x1 - _APART > right or y1 - _APART > bottom
                if beside or box_labels[n, g] < 0:
                    continue
                _overlap(columns, boxes[n, g], one, iou[:size])
                largest[n, g, chunk] = _largest_bits(iou[:size])
                for j in range(size):
                    if iou[j] > best[j]:  # so the first of equals
                        best[j], which[j] = iou[j], g
            for j in range(size):
                unmatched = _BACKGROUND if best[j] < background else _IGNORED
                labels[n, first + j] = box_labels[n, which[j]] if best[j] >= foreground else unmatched
                matched[n, first + j] = which[j]
    if low_quality:
        _claim(anchors, boxes, box_labels, (one, largest), (labels, matched))
    return labels, matched


@_finite_kernel
def _claim(anchors: Array, boxes: Array, box_labels: Array, found: tuple[Any, Array], out: tuple[Array, Array]) -> None:
    """Make positive the anchors that a box overlaps most, in the chunks that hold its largest overlap."""
    one, largest = found
    labels, matched = out
    columns, iou = np.empty((5, CHUNK), np.float32), np.empty(CHUNK, np.float32)
    bits = iou.view(np.int32)
    for n in range(boxes.shape[0]):
        for g in range(boxes.shape[1]):
            best = largest[n, g].max()
            for chunk in range(largest.shape[2]):
                if best <= 0 or largest[n, g, chunk] != best:
                    continue
                first, size = chunk * CHUNK, min(CHUNK, anchors.shape[0] - chunk * CHUNK)
                _load(anchors[first : first + size], one, columns)
                _overlap(columns, boxes[n, g], one, iou[:size])
                for j in range(size):
                    if bits[j] == best:
                        labels[n, first + j] = box_labels[n, matched[n, first + j]]


@_finite_kernel
def _load(anchors: Array, one: Any, columns: Array) -> tuple[Any, Any, Any, Any]:
    """Write x1, y1, x2, y2 and area of [C, 4] anchors into rows of ``columns``; the box around all of them."""
    left, top, right, bottom = anchors[0]
    for j in range(anchors.shape[0]):
        x1, y1, x2, y2 = anchors[j]
        columns[0, j], columns[1, j], columns[2, j], columns[3, j] = x1, y1, x2, y2
        columns[4, j] = (x2 - x1 + one) * (y2 - y1 + one)
        left, top, right, bottom = min(left, x1), min(top, y1), max(right, x2), max(bottom, y2)
    return left, top, right, bottom


@_finite_kernel
def _overlap(columns: Array, box: Array, one: Any, iou: Array) -> None:
    """Write the IoU of one box with each anchor of ``columns``, rounded as by ``assign.pairwise_iou``."""
    x1, y1, x2, y2 = box
    left, top, right, bottom, areas = columns[0], columns[1], columns[2], columns[3], columns[4]
    area = (x2 - x1 + one) * (y2 - y1 + one)
    for j in range(iou.shape[0]):
        width = min(x2, right[j]) - max(x1, left[j]) + one
        height = min(y2, bottom[j]) - max(y1, top[j]) + one
        intersection = max(width, _ZERO) * max(height, _ZERO)
        iou[j] = intersection / (area + areas[j] - intersection)


@_kernel
def _largest_bits(values: Array) -> Any:
    """The bits of the largest of some float32 >= 0, as int32: in the same order, and faster to compare."""
    largest = np.int32(0)
    for bits in values.view(np.int32):
        largest = max(largest, bits)
    return largest


@_kernel
def best_entries(logits: Array, least: Any, count: int) -> Array:
    """Indices of the entries of ``logits`` [M] float32 above ``least``, in their order; never of a NaN.

    All of them or, if they are too many, at least the ``count`` largest (of equals the first): whenever the list is
    full, it keeps its ``count`` largest, and later entries must be above the smallest of those.
    """
    capacity = 4 * count + RUN
    places, values, length = np.empty(capacity, np.int64), np.empty(capacity, np.float32), 0
    for first in range(0, logits.shape[0], RUN):
        run = logits[first : first + RUN]
        over = 0
        for value in run:
            over |= value > least
        if not over:
            continue
        for j in range(run.shape[0]):
            places[length], values[length] = first + j, run[j]
            length += run[j] > least
        if length > capacity - RUN:
            least = np.partition(values[:length], length - count)[length - count]
            length = _keep_largest(places, values, length, (least, count))
    return places[:length]


@_kernel
def _keep_largest(places: Array, values: Array, length: int, rule: tuple[Any, int]) -> int:
    """Move the ``count`` largest of the first ``length`` entries to the front, in their order; returns their number."""
    least, count = rule
    equals, kept = count, 0
    for j in range(length):
        equals -= values[j] > least
    for j in range(length):
        if values[j] > least or (values[j] == least and equals > 0):
            equals -= values[j] == least
            places[kept], values[kept] = places[j], values[j]
            kept += 1
    return kept


@_kernel
def suppress(boxes: Array, labels: Array, iou: float, limit: int) -> Array:
    """Indices of the first ``limit`` boxes that no kept box of the same label overlaps by more than ``iou``.

    boxes: [D, 4] float64 (x1, y1, x2, y2) by falling score; labels: [D]. Equals torchvision's nms within each class.
    """
    kept, length = np.empty(min(limit, boxes.shape[0]), np.int64), 0
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for i in range(boxes.shape[0]):
        if length == kept.shape[0]:
            break
        alone = True
        for k in kept[:length]:
            if labels[k] != labels[i]:
                continue
            width = max(min(boxes[i, 2], boxes[k, 2]) - max(boxes[i, 0], boxes[k, 0]), 0.0)
            height = max(min(boxes[i, 3], boxes[k, 3]) - max(boxes[i, 1], boxes[k, 1]), 0.0)
            intersection = width * height
            if intersection / (areas[k] + areas[i] - intersection) > iou:
                alone = False
                break
        if alone:
            kept[length] = i
            length += 1
    return kept[:length]
