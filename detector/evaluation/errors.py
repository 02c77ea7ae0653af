"""AP lost by kind of error: what would be won at IoU 0.5 if all errors of one kind were mended, and no other.

After TIDE (Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", 2020), section 2. Free of
torch. Legend: N images, M detections, B boxes, C categories.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detector.data.coco.annotations import find
from detector.data.coco.index import CocoIndex
from detector.evaluation.detections import Detections
from detector.runs.findings import LostAP

FOREGROUND, BACKGROUND = 0.5, 0.1  # IoU: from here on a box is found; up to here it is not even touched
_RECALLS = np.linspace(0.0, 1.0, 101)
_RIGHT, _CLASS, _LOCATION, _BOTH, _DUPLICATE, _NOTHING, _IGNORED = range(7)

_kernel = njit(error_model="numpy", nogil=True, cache=True)


@dataclass(frozen=True, eq=False)
class _Ranked:
    """Detections that count, and how many boxes of each category there are to find."""

    labels: NDArray[np.int64]  # [M]
    scores: NDArray[np.float64]  # [M]
    right: NDArray[np.bool_]  # [M]
    boxes: NDArray[np.int64]  # [C]


def lost_ap(index: CocoIndex, detections: Detections) -> LostAP:
    """Points of AP50 (percent) that each kind of error costs, 0 or more. They do not add up: one hides another.

    A detection that is not right is, by the first that holds: badly placed (IoU 0.1 to 0.5 with a box of its category),
    of the wrong category (0.5 with another's box), a duplicate, on nothing (below 0.1 with all), or both. Mending
    takes the best-scored of those that could find a box which nothing found, and removes the others. A box is missed
    if none could. Detections that only lie on a crowd of their category do not count, as in COCO.
    """
    images = find(index.image_ids, detections.image_ids)
    order = np.lexsort((-detections.scores, images))  # stable
    labels = find(index.category_ids, detections.category_ids)[order]
    starts = np.searchsorted(images[order], np.arange(index.num_images + 1))
    truth = np.concatenate([index.boxes[:, :2], index.sides], axis=1)
    kinds, targets, found, mended_by = _classified(
        starts, detections.boxes[order], labels, index.offsets, truth, index.labels, index.crowd
    )
    counts = kinds != _IGNORED
    num_boxes = np.bincount(index.labels[~index.crowd], minlength=len(index.category_ids))
    base = _Ranked(labels[counts], detections.scores[order][counts], kinds[counts] == _RIGHT, num_boxes)
    best = (targets >= 0) & (mended_by[targets] == np.arange(len(kinds))) if len(truth) else targets >= 0
    kinds, targets, best = kinds[counts], targets[counts], best[counts]
    before = _ap50(base)

    def won(mended: _Ranked) -> float:
        return max(0.0, 100 * (_ap50(mended) - before))

    def corrected(kind: int) -> _Ranked:
        mine = best & (kinds == kind)
        labels = np.where(mine, index.labels[targets] if len(truth) else 0, base.labels)
        kept = (kinds != kind) | mine
        return replace(base, labels=labels[kept], scores=base.scores[kept], right=(base.right | mine)[kept])

    def removed(kind: int) -> _Ranked:
        kept = kinds != kind
        return replace(base, labels=base.labels[kept], scores=base.scores[kept], right=base.right[kept])

    missed = ~index.crowd & ~found & (mended_by < 0)
    fewer = num_boxes - np.bincount(index.labels[missed], minlength=len(num_boxes))
    return LostAP(
        classification=won(corrected(_CLASS)),
        localisation=won(corrected(_LOCATION)),
        both=won(removed(_BOTH)),
        duplicate=won(removed(_DUPLICATE)),
        background=won(removed(_NOTHING)),
        missed=won(replace(base, boxes=fewer)),
    )


def _ap50(ranked: _Ranked) -> float:
    """COCO's AP at IoU 0.5, 0..1. A category whose last box was taken away has 1 without wrong detections, else 0."""
    order = np.lexsort((-ranked.scores, ranked.labels))
    labels, right = ranked.labels[order], ranked.right[order]
    bounds = np.searchsorted(labels, np.arange(len(ranked.boxes) + 1))
    found = []
    for category, boxes in enumerate(ranked.boxes.tolist()):
        mine = right[bounds[category] : bounds[category + 1]]
        found.append(_ap_of_category(mine, boxes) if boxes else float(len(mine) == 0))
    return float(np.mean(found)) if found else 0.0


def _ap_of_category(right: NDArray[np.bool_], boxes: int) -> float:
    hits = np.cumsum(right)
    precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
    at = np.searchsorted(hits / boxes, _RECALLS)
    return float(np.append(precision, 0.0)[np.minimum(at, len(hits))].mean())


@_kernel
def _classified(
    starts: Any, boxes: Any, labels: Any, offsets: Any, truth: Any, truth_labels: Any, crowd: Any
) -> tuple[Any, Any, Any, Any]:
    """Kind [M] of each detection, the box [M] that it could have found, boxes found [B], and by whom mended [B].

    boxes, truth: x, y, width, height. Detections are sorted by image, then by falling score. -1 for none.
    """
    kinds, targets = np.zeros(len(boxes), np.int64), np.full(len(boxes), -1)
    found, mended_by = np.zeros(len(truth), np.bool_), np.full(len(truth), -1)
    for n in range(len(starts) - 1):
        first, last = offsets[n], offsets[n + 1]
        overlap = np.zeros((starts[n + 1] - starts[n], last - first))
        for m in range(starts[n], starts[n + 1]):
            row, best, which = overlap[m - starts[n]], FOREGROUND, -1
            for b in range(first, last):
                row[b - first] = _overlap(boxes[m], truth[b], crowd[b])
                free = not crowd[b] and not found[b] and truth_labels[b] == labels[m]
                if free and row[b - first] >= best:
                    best, which = row[b - first], b
            kinds[m] = _RIGHT if which >= 0 else _NOTHING
            if which >= 0:
                found[which] = True
        for m in range(starts[n], starts[n + 1]):
            if kinds[m] == _RIGHT:
                continue
            kinds[m], target = _kind(overlap[m - starts[n]], labels[m], first, truth_labels, crowd)
            if target >= 0 and not found[target]:
                targets[m] = target
                if mended_by[target] < 0:
                    mended_by[target] = m
    return kinds, targets, found, mended_by


@_kernel
def _kind(row: Any, label: int, first: int, truth_labels: Any, crowd: Any) -> tuple[int, int]:
    """Why a detection is not right, and the box that it would find without that error (-1: none)."""
    same = other = 0.0
    same_at = other_at = -1
    for i in range(len(row)):
        b = first + i
        if crowd[b]:
            if truth_labels[b] == label and row[i] >= FOREGROUND:
                return _IGNORED, -1
        elif truth_labels[b] == label:
            if row[i] > same:
                same, same_at = row[i], b
        elif row[i] > other:
            other, other_at = row[i], b
    if BACKGROUND <= same < FOREGROUND:
        return _LOCATION, same_at
    if other >= FOREGROUND:
        return _CLASS, other_at
    if same >= FOREGROUND:
        return _DUPLICATE, -1
    return (_NOTHING if max(same, other) <= BACKGROUND else _BOTH), -1


@_kernel
def _overlap(box: Any, truth: Any, crowd: bool) -> Any:
    """IoU of two boxes (x, y, width, height); of a crowd, the share of the detection that lies in it."""
    width = min(box[0] + box[2], truth[0] + truth[2]) - max(box[0], truth[0])
    height = min(box[1] + box[3], truth[1] + truth[3]) - max(box[1], truth[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = box[2] * box[3]
    whole = area if crowd else area + truth[2] * truth[3] - width * height
    return width * height / whole
