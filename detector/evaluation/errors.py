"""AP lost by kind of error: what would be won at IoU 0.5 if all errors of one kind were mended, and no other.

After TIDE (Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", 2020), section 2. Free of
torch. Legend: N images, M detections, B boxes, C categories, R area ranges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.data.coco.index import CocoIndex
from detector.evaluation.detections import Detections
from detector.evaluation.errors_kinds import (
    ABSENT,
    BOTH,
    CLASS,
    COUNTS_AS_RIGHT,
    DUPLICATE,
    LOCATION,
    NOTHING,
    Judged,
    judged,
)
from detector.runs.findings import (
    KINDS,
    LOST_DIGITS,
    MOST_CLASSES,
    MOST_NAME,
    OBJECTS,
    SIZES,
    Kind,
    LostAP,
    LostClasses,
    LostParts,
    Part,
)
from drloss.numba_cache import cached_njit

FEWEST_OBJECTS = (1, 2, 5, 10)  # from which number of objects in an image each of ``OBJECTS`` begins
_MENDED: Mapping[Kind, int] = {"classification": CLASS, "localisation": LOCATION}
_REMOVED: Mapping[Kind, int] = {"both": BOTH, "duplicate": DUPLICATE, "background": NOTHING}
_RECALLS = np.linspace(0.0, 1.0, 101)

_kernel = cached_njit(error_model="numpy", nogil=True)


@dataclass(frozen=True, eq=False)
class _Ranked:
    """Detections by category and falling score, as they are or mended, and the boxes to be found.

    groups, box_groups: by the number of objects in the image, a position in ``OBJECTS``; -1 in an image without any.
    """

    labels: NDArray[np.int64]  # [M]
    states: NDArray[np.int8]  # [R, M]
    groups: NDArray[np.int64]  # [M]
    boxes: NDArray[np.bool_]  # [R, B]
    box_labels: NDArray[np.int64]  # [B]
    box_groups: NDArray[np.int64]  # [B]
    num_classes: int


@dataclass(frozen=True, eq=False)
class _Scored:
    """For each part of the test set (``_views``): AP50 (0..1), boxes, and detections that count, by category."""

    ap: NDArray[np.float64]  # [parts, C]; without boxes 1 where no detection counts, else 0
    boxes: NDArray[np.int64]  # [parts, C]
    counted: NDArray[np.int64]  # [parts, C]


def errors_of(index: CocoIndex, detections: Detections) -> tuple[LostAP, LostParts]:
    """Points of AP50 (percent) that each kind of error costs, 0 or more: in all, and in parts of the test set.

    They do not add up: one error hides another. A detection that is not right is, by the first that holds: badly placed
    (IoU 0.1 to 0.5 with a box of its category), of the wrong category (0.5 with another's box), a duplicate, on nothing
    (at most 0.1 with all), or both. Mending takes the best-scored of those that could find a box which nothing found,
    and removes the others. A box is missed if none could; mended, it need not be found. A category whose last box need
    not be found is left out of the mean where it has no detections, and has an AP of 0 where it has some.

    Equal to tidecv 1.0.1, but for five things, in all of which this is COCO's evaluation, so that what is lost is lost
    from the record's AP50. (1) A category that the truth does not have is left out; there it is in the mean, with an AP
    of 0: where one of 4 categories is such, all its numbers are 3/4 of these. (2) The best 100 detections of an image
    and category count; there those of an image. (3) Of equal scores, the first image's come first; there, once an error
    is mended, the wrong before the right: of scores of one digit its numbers are up to 12 points lower in our tests, of
    a network's scores they are the same. (4) A detection of which just half lies on a crowd does not count; there it is
    wrong. (5) 10 of its 101 points of recall differ in the last bit: up to 0.13 points on images as few as ours.

    Parts. A category: its own AP50, before and after; a detection that gets its right category changes two. Where its
    last box need not be found its AP is 100, or 0 with detections. A size (COCO's small, medium, large): the AP50 that
    COCO gives it, before and after. So boxes of other sizes, with what found or would find them, do not count, nor do
    detections of other sizes that are wrong: what is lost by a bad place, a wrong category or a miss is lost where the
    box belongs, a detection on nothing costs where it belongs itself. Number of objects: the AP50 of the images with so
    many boxes that are no crowds. Parts without a box are left out: nothing is to be found there.
    """
    found = judged(index, detections)
    base = _ranked(index, found)
    before = _scored(base)
    after: dict[Kind, _Scored] = {kind: _scored(_mended(base, found, code)) for kind, code in _MENDED.items()}
    after |= {kind: _scored(_removed(base, found, code)) for kind, code in _REMOVED.items()}
    after["missed"] = _scored(replace(base, boxes=base.boxes & ~(found.missed & ~found.found)))
    return _lost(before, after, 0), LostParts(
        sizes=_parts(SIZES, before, after, first=1),
        objects=_parts(OBJECTS, before, after, first=1 + len(SIZES)),
        classes=_classes(index, before, after),
    )


def _ranked(index: CocoIndex, found: Judged) -> _Ranked:
    positions = index.positions()
    objects = np.bincount(positions[~index.crowd], minlength=index.num_images)
    groups = np.searchsorted(FEWEST_OBJECTS, objects, side="right") - 1
    return _Ranked(
        labels=found.labels,
        states=found.states,
        groups=groups[found.images],
        boxes=found.inside,
        box_labels=index.labels,
        box_groups=groups[positions],
        num_classes=len(index.category_ids),
    )


def _mended(base: _Ranked, found: Judged, kind: int) -> _Ranked:
    """The best of a kind right, where its box counts and was not found in that range; the others away."""
    ranked = _removed(base, found, kind)
    best = np.flatnonzero((found.kinds == kind) & (found.targets >= 0))
    targets = found.targets[best]
    wins = found.inside[:, targets] & ~found.found[:, targets] & (ranked.states[:, best] == ABSENT)
    # Right in a size though wrong in all, which two boxes of one category make: not under another name.
    others = np.int8(ABSENT) if kind == CLASS else ranked.states[:, best]
    ranked.states[:, best] = np.where(wins, np.int8(COUNTS_AS_RIGHT), others)
    if kind != CLASS:
        return ranked
    labels = base.labels.copy()
    labels[best] = base.box_labels[targets]
    order = np.lexsort((found.ranks, labels))
    return replace(ranked, labels=labels[order], states=ranked.states[:, order], groups=base.groups[order])


def _removed(base: _Ranked, found: Judged, kind: int) -> _Ranked:
    wrong = (found.kinds == kind) & (base.states != COUNTS_AS_RIGHT)
    return replace(base, states=np.where(wrong, np.int8(ABSENT), base.states))


def _views() -> list[tuple[int, int]]:
    """(area range, position in ``OBJECTS`` or -1 for all images) of each part: all, by size, by number of objects."""
    return [(r, -1) for r in range(1 + len(SIZES))] + [(0, group) for group in range(len(OBJECTS))]


def _scored(ranked: _Ranked) -> _Scored:
    bounds = np.searchsorted(ranked.labels, np.arange(ranked.num_classes + 1))
    ap, boxes, counted = [], [], []
    for area, group in _views():
        of_part = ranked.boxes[area] & ((ranked.box_groups == group) | (group < 0))
        boxes.append(np.bincount(ranked.box_labels[of_part], minlength=ranked.num_classes))
        found = _average_precision(ranked.states[area], ranked.groups, group, bounds, boxes[-1], _RECALLS)
        ap.append(found[0])
        counted.append(found[1])
    return _Scored(np.array(ap), np.array(boxes), np.array(counted))


def _mean(scored: _Scored, part: int, truth: NDArray[np.int64]) -> float:
    """AP50 in percent over the categories of which the part has boxes. truth: [C] boxes before anything is mended."""
    counts = (truth > 0) & ((scored.boxes[part] > 0) | (scored.counted[part] > 0))
    return 100 * float(scored.ap[part, counts].mean()) if counts.any() else 100.0


def _lost(before: _Scored, after: Mapping[Kind, _Scored], part: int) -> LostAP:
    truth = before.boxes[part]
    if not truth.any():  # a test set without a box, as COCO says -1
        return LostAP(**dict.fromkeys(KINDS, 0.0))
    base = _mean(before, part, truth)
    return LostAP(**{kind: max(0.0, _mean(after[kind], part, truth) - base) for kind in KINDS})


def _parts(names: tuple[Any, ...], before: _Scored, after: Mapping[Kind, _Scored], *, first: int) -> dict[Any, Part]:
    """By name, the parts that have boxes. first: the position of the first of them."""
    found = {}
    for part, name in enumerate(names, first):
        truth = before.boxes[part]
        if truth.any():
            lost = _lost(before, after, part)
            rounded = LostAP(**{kind: round(getattr(lost, kind), LOST_DIGITS) for kind in KINDS})
            found[name] = Part(boxes=int(truth.sum()), AP50=_shown(_mean(before, part, truth)), lost=rounded)
    return found


def _shown(value: float) -> float:
    return round(value, LOST_DIGITS)


def _classes(index: CocoIndex, before: _Scored, after: Mapping[Kind, _Scored]) -> LostClasses:
    """Those that have boxes; of very many, those that have most."""
    boxes = before.boxes[0]
    most = np.argsort(-boxes, kind="stable")[:MOST_CLASSES]
    chosen = np.sort(most[boxes[most] > 0])

    def column(values: NDArray[np.float64]) -> tuple[float, ...]:
        return tuple(_shown(100 * value) for value in values[chosen].tolist())

    names = index.category_names
    return LostClasses(
        ids=tuple(index.category_ids[chosen].tolist()),
        names=tuple(names[i].encode("utf-8", "replace").decode()[:MOST_NAME] for i in chosen.tolist()),
        boxes=tuple(boxes[chosen].tolist()),
        AP50=column(before.ap[0]),
        lost={kind: column(np.maximum(0.0, after[kind].ap[0] - before.ap[0])) for kind in KINDS},
    )


@_kernel
def _average_precision(states: Any, groups: Any, group: int, bounds: Any, boxes: Any, recalls: Any) -> tuple[Any, Any]:
    """AP (0..1) of each category [C] at one IoU, as COCO has it, and how many detections count [C].

    bounds: [C + 1] where the detections of each category begin. group: only those of these images; -1 for all.
    """
    ap, counted = np.zeros(len(boxes)), np.zeros(len(boxes), np.int64)
    precision = np.empty(max(1, len(states)))
    for c in range(len(boxes)):
        hits = seen = 0
        for m in range(bounds[c], bounds[c + 1]):
            if states[m] == ABSENT or (group >= 0 and groups[m] != group):
                continue
            seen += 1
            if states[m] == COUNTS_AS_RIGHT:
                precision[hits] = (hits + 1) / seen
                hits += 1
        counted[c] = seen
        if boxes[c] == 0:
            ap[c] = 0.0 if seen else 1.0
            continue
        for i in range(hits - 1, 0, -1):
            precision[i - 1] = max(precision[i - 1], precision[i])
        total, i = 0.0, 0
        for recall in recalls:
            while i < hits and (i + 1) / boxes[c] < recall:
                i += 1
            if i < hits:
                total += precision[i]
        ap[c] = total / len(recalls)
    return ap, counted
