"""What is right, wrong and missed on each image, as COCO's evaluation matches at IoU 0.5. Free of torch.

Legend: M detections and G boxes of one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from detector.data.coco.annotations import find
from detector.data.coco.index import CocoIndex
from detector.evaluation.detections import Detections

IOU: Final = 0.5
MOST: Final = 100  # detections per image and category that count, as in COCO
TRUE, FALSE, IGNORED = 0, 1, 2  # ignored: only on a crowd of its category, neither right nor wrong


@dataclass(frozen=True, eq=False)
class Outcome:
    """The detections of one image, best first, and its annotated boxes in the annotations' order."""

    boxes: NDArray[np.float64]  # [M, 4] x1, y1, x2, y2
    labels: NDArray[np.int64]  # [M] positions in the index's categories
    scores: NDArray[np.float64]  # [M]
    kinds: NDArray[np.int64]  # [M]
    truth: NDArray[np.float64]  # [G, 4]
    truth_labels: NDArray[np.int64]  # [G]
    crowd: NDArray[np.bool_]  # [G]
    found_by: NDArray[np.int64]  # [G] which detection is right by it; -1: none

    @property
    def num_objects(self) -> int:
        """Annotated boxes that are no crowd."""
        return int(np.count_nonzero(~self.crowd))

    def missed(self, least: float) -> NDArray[np.bool_]:
        """[G] objects that no detection of at least this score finds."""
        found = np.zeros(len(self.crowd), np.bool_)
        by = self.found_by >= 0
        found[by] = self.scores[self.found_by[by]] >= least
        missed: NDArray[np.bool_] = ~found & ~self.crowd
        return missed


def outcomes(index: CocoIndex, detections: Detections) -> list[Outcome]:
    """One per image, in the index's order. The detections have passed ``check_detections``."""
    images = find(index.image_ids, detections.image_ids)
    order = np.lexsort((-detections.scores, images))  # stable: of equal scores the first of the file
    labels = find(index.category_ids, detections.category_ids)[order]
    bounds = np.searchsorted(images[order], np.arange(index.num_images + 1)).tolist()
    boxes, scores = detections.boxes[order], detections.scores[order]
    found = []
    for i in range(index.num_images):
        rows, mine = index.annotations_of(i), slice(bounds[i], bounds[i + 1])
        truth = np.concatenate([index.boxes[rows, :2], index.sides[rows]], axis=1)
        found.append(_outcome(boxes[mine], labels[mine], scores[mine], truth, index.labels[rows], index.crowd[rows]))
    return found


def _outcome(
    boxes: NDArray[np.float64],
    labels: NDArray[np.int64],
    scores: NDArray[np.float64],
    truth: NDArray[np.float64],
    truth_labels: NDArray[np.int64],
    crowd: NDArray[np.bool_],
) -> Outcome:
    """boxes, truth: x, y, width, height."""
    counted = _first_of_category(labels)
    boxes, labels, scores = boxes[counted], labels[counted], scores[counted]
    overlap = _overlaps(boxes, truth, crowd) * (labels[:, None] == truth_labels[None, :])
    kinds, found_by = _matched(overlap, crowd)
    return Outcome(_corners(boxes), labels, scores, kinds, _corners(truth), truth_labels, crowd, found_by)


def _matched(overlap: NDArray[np.float64], crowd: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[M] kinds and [G] by which detection each box is found, of overlaps [M, G] with boxes of the same category."""
    kinds, found_by = [FALSE] * overlap.shape[0], [-1] * overlap.shape[1]
    crowds = crowd.tolist()
    rows, columns = np.nonzero(overlap >= IOU)  # by rows: few pairs, so that plain numbers are faster than arrays
    pairs = zip(rows.tolist(), columns.tolist(), overlap[rows, columns].tolist(), strict=True)
    for m, mine in groupby(pairs, key=itemgetter(0)):
        best, most, on_crowd = -1, 0.0, False
        for _, g, value in mine:
            if crowds[g]:
                on_crowd = True
            elif found_by[g] < 0 and value >= most:  # pycocotools: of equals the last
                best, most = g, value
        if best >= 0:
            kinds[m], found_by[best] = TRUE, m
        elif on_crowd:
            kinds[m] = IGNORED
    return np.array(kinds, np.int64), np.array(found_by, np.int64)


def _first_of_category(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[M] the first ``MOST`` detections of each category."""
    counted = np.ones(len(labels), np.bool_)
    if len(labels) > MOST:
        for label in np.unique(labels).tolist():
            counted[np.flatnonzero(labels == label)[MOST:]] = False
    return counted


def _overlaps(boxes: NDArray[np.float64], truth: NDArray[np.float64], crowd: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[M, G] IoU; of a crowd, the share of the detection that lies in it."""
    low = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    high = np.minimum((boxes[:, :2] + boxes[:, 2:])[:, None], (truth[:, :2] + truth[:, 2:])[None])
    common = np.maximum(high - low, 0).prod(axis=2)
    area, others = boxes[:, 2:].prod(axis=1)[:, None], truth[:, 2:].prod(axis=1)[None]
    whole = np.where(crowd[None], area, area + others - common)
    overlap: NDArray[np.float64] = np.divide(common, whole, out=np.zeros_like(common), where=whole > 0)
    return overlap


def _corners(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def image_ap(outcome: Outcome) -> float | None:
    """AP of one image at IoU 0.5, 0..1, of all its categories in one ranking; None where it holds no object.

    (1/G) * sum over the true detections k of max over j >= k of (true among the first j) / j: the area under the
    image's own curve of precision over recall, with precision made to fall as in COCO. Ignored ones are left out.
    """
    if not outcome.num_objects:
        return None
    right = outcome.kinds[outcome.kinds != IGNORED] == TRUE
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    return float(falling[right].sum() / outcome.num_objects)


def best_threshold(found: Sequence[Outcome]) -> float:
    """The score at which F1 = 2 TP / (detections + objects) of all images is largest, of equals the highest score.

    So two runs are drawn at the same footing, though the scores of their losses differ. 1 without any detection.
    """
    kinds = np.concatenate([np.zeros(0, np.int64), *(one.kinds for one in found)])
    scores = np.concatenate([np.zeros(0), *(one.scores for one in found)])
    scores, kinds = scores[kinds != IGNORED], kinds[kinds != IGNORED]
    if not len(scores):
        return 1.0
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], np.cumsum(kinds[order] == TRUE)
    last = np.append(scores[1:] != scores[:-1], True)  # of equal scores all are drawn or none
    quality = 2 * right / (np.arange(1, len(right) + 1) + sum(one.num_objects for one in found))
    return float(scores[int(np.argmax(np.where(last, quality, -1)))])
