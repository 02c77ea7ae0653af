"""What is wrong with each detection, and which box it would find without that error. Free of torch.

Legend: N images, M detections, B boxes, R area ranges, the first of them all sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detector.data.coco.annotations import find
from detector.data.coco.index import CocoIndex
from detector.evaluation.detections import Detections
from drloss.numba_cache import cached_njit

FOREGROUND, BACKGROUND = 0.5, 0.1  # IoU: from here on a box is found; up to here it is not even touched
MOST_DETECTIONS: Final = 100  # of an image and category, the best-scored; COCO's evaluation looks at no more
AREAS: Final = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])  # pixels, COCO's: both ends included
RIGHT, CLASS, LOCATION, BOTH, DUPLICATE, NOTHING, BEYOND = range(7)  # BEYOND: after the best ``MOST_DETECTIONS``
ABSENT, WRONG, COUNTS_AS_RIGHT = range(3)

_kernel = cached_njit(error_model="numpy", nogil=True)


@dataclass(frozen=True, eq=False)
class Judged:
    """Detections by category, then by falling score, those of equal score by image; and the boxes."""

    labels: NDArray[np.int64]  # [M]
    images: NDArray[np.int64]  # [M] positions
    ranks: NDArray[np.int64]  # [M] by falling score over all categories
    kinds: NDArray[np.int64]  # [M] RIGHT, CLASS, ...
    targets: NDArray[np.int64]  # [M] the box that it would find without its error, if it is the best to do so; else -1
    states: NDArray[np.int8]  # [R, M] as COCO counts it in that range: ABSENT, WRONG or COUNTS_AS_RIGHT
    inside: NDArray[np.bool_]  # [R, B] boxes to be found: of that size, and no crowd
    found: NDArray[np.bool_]  # [R, B]
    missed: NDArray[np.bool_]  # [B] neither found nor the target of a detection


def judged(index: CocoIndex, detections: Detections) -> Judged:
    """All detections. They have passed ``check_detections``."""
    images = find(index.image_ids, detections.image_ids)
    by_score = _order(images, index.num_images)
    by_score = by_score[np.argsort(-detections.scores[by_score], kind="stable")]
    images, labels = images[by_score], find(index.category_ids, detections.category_ids)[by_score]
    by_image = _order(images, index.num_images)
    inside = ~index.crowd & (index.areas >= AREAS[:, :1]) & (index.areas <= AREAS[:, 1:])
    kinds, targets, states, found, mended = _judge(
        np.searchsorted(images[by_image], np.arange(index.num_images + 1)),
        detections.boxes[by_score[by_image]],
        labels[by_image],
        index.offsets,
        np.concatenate([index.boxes[:, :2], index.sides], axis=1),
        index.labels,
        index.crowd,
        inside,
        len(index.category_ids),
    )
    ranks = _order(labels, len(index.category_ids))
    back = np.empty_like(by_image)
    back[by_image] = np.arange(len(by_image))
    back = back[ranks]
    return Judged(
        labels=labels[ranks],
        images=images[ranks],
        ranks=ranks,
        kinds=kinds[back],
        targets=targets[back],
        states=states[:, back],
        inside=inside,
        found=found,
        missed=inside[0] & ~found[0] & ~mended,
    )


def _order(values: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """As a stable argsort of whole numbers from 0 to below ``most``; numpy sorts small ones in a tenth of the time."""
    small = values.astype(np.int16) if most <= 2**15 else values
    return np.argsort(small, kind="stable")


@_kernel
def _judge(
    starts: Any,
    boxes: Any,
    labels: Any,
    offsets: Any,
    truth: Any,
    truth_labels: Any,
    crowd: Any,
    inside: Any,
    num_classes: int,
) -> tuple[Any, Any, Any, Any, Any]:
    """``Judged.kinds``, ``targets``, ``states`` and ``found``, and boxes that are targets [B].

    Detections by image, then by falling score. Boxes are x, y, width, height.
    """
    kinds, targets = np.full(len(boxes), BEYOND), np.full(len(boxes), -1)
    states = np.zeros((len(inside), len(boxes)), np.int8)
    found, mended = np.zeros(inside.shape, np.bool_), np.zeros(len(truth), np.bool_)
    seen = np.zeros(num_classes, np.int64)
    for n in range(len(starts) - 1):
        first, last = offsets[n], offsets[n + 1]
        overlap = np.zeros((starts[n + 1] - starts[n], last - first))
        seen[:] = 0
        for m in range(starts[n], starts[n + 1]):
            seen[labels[m]] += 1
            if seen[labels[m]] > MOST_DETECTIONS:
                continue
            row = overlap[m - starts[n]]
            for b in range(first, last):
                row[b - first] = _overlap(boxes[m], truth[b], crowd[b])
            area = boxes[m, 2] * boxes[m, 3]
            for r in range(len(inside)):
                out = area < AREAS[r, 0] or area > AREAS[r, 1]
                states[r, m] = _state(row, labels[m], first, truth_labels, crowd, inside[r], found[r], out)
            kinds[m] = RIGHT if states[0, m] == COUNTS_AS_RIGHT else NOTHING
        for m in range(starts[n], starts[n + 1]):
            if kinds[m] == NOTHING:
                kinds[m], target = _kind(overlap[m - starts[n]], labels[m], first, truth_labels, crowd)
                if target >= 0 and not found[0, target] and not mended[target]:
                    targets[m], mended[target] = target, True
    return kinds, targets, states, found, mended


@_kernel
def _state(
    row: Any, label: int, first: int, truth_labels: Any, crowd: Any, inside: Any, found: Any, out_of_range: bool
) -> int:
    """What COCO's matching makes of the next detection: first a box that counts, then one that does not."""
    best = passed = FOREGROUND
    which = other = -1
    for i in range(len(row)):
        b = first + i
        if truth_labels[b] != label or (found[b] and not crowd[b]):
            continue
        if inside[b] and row[i] >= best:
            best, which = row[i], b
        elif not inside[b] and row[i] >= passed:
            passed, other = row[i], b
    if which >= 0:
        found[which] = True
        return COUNTS_AS_RIGHT
    if other >= 0:
        found[other] = not crowd[other]
        return ABSENT
    return ABSENT if out_of_range else WRONG


@_kernel
def _kind(row: Any, label: int, first: int, truth_labels: Any, crowd: Any) -> tuple[int, int]:
    """Why a detection is not right, and the box that it would find without that error (-1: none)."""
    same = other = 0.0
    same_at = other_at = -1
    for i in range(len(row)):
        b = first + i
        if crowd[b]:
            continue
        if truth_labels[b] == label:
            if row[i] > same:
                same, same_at = row[i], b
        elif row[i] > other:
            other, other_at = row[i], b
    if BACKGROUND <= same <= FOREGROUND:
        return LOCATION, same_at
    if other >= FOREGROUND:
        return CLASS, other_at
    if same >= FOREGROUND:
        return DUPLICATE, -1
    return (NOTHING if max(same, other) <= BACKGROUND else BOTH), -1


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
