"""Where the labels of boxes stand: outside of the objects, and not on each other. M boxes, C places tried for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
GAP: Final = 2.0  # pixels between a box and its label
STEPS: Final = (0.0, 1.0, 2.0, 3.0, 5.0, 7.0)  # heights of a label that it may be moved away from its box
# What a place costs: for each label's height of distance, and for the shares of it outside of the image and on boxes.
_DISTANCE, _ABOVE_OR_BELOW, _BESIDE, _ON_OBJECTS = 0.06, 0.15, 0.4, 0.1
_TAKEN = 1e6


def place_labels(boxes: Array, sizes: Array, image: tuple[float, float]) -> list[tuple[float, float] | None]:
    """The upper left corner of each label, the first label first; None where no place is free.

    boxes: [M, 4] x1, y1, x2, y2, all of them objects that labels should not cover; sizes: [M, 2] width and height of
    the labels, 0 for a box without one; image: width and height. A label may stand outside of the image, which is then
    drawn with a margin. Of the places that no label has, the one is taken that hides least: of every box the share
    that the label covers, with a little for distance and for a margin.
    """
    placed = np.zeros((0, 4))
    found: list[tuple[float, float] | None] = []
    for box, size in zip(boxes, sizes, strict=True):
        if not size.all():
            found.append(None)
            continue
        corners, distance = _candidates(box, size, image)
        labels = np.concatenate([corners, corners + size], axis=1)
        cost = _DISTANCE * distance + _hidden(labels, boxes) + _outside(labels, image)
        cost += _TAKEN * (_overlaps(labels, placed) > 0).any(axis=1)
        best = int(np.argmin(cost))
        if cost[best] >= _TAKEN:
            found.append(None)
            continue
        placed = np.concatenate([placed, labels[best : best + 1]])
        found.append((float(corners[best, 0]), float(corners[best, 1])))
    return found


def _candidates(box: Array, size: Array, image: tuple[float, float]) -> tuple[Array, Array]:
    """[C, 2] upper left corners and [C] distances in heights of a label. At equal cost the first is taken."""
    x1, y1, x2, y2 = np.clip(box, 0, np.tile(image, 2)).tolist()
    width, height = size.tolist()
    across = (x1, x2 - width, (x1 + x2 - width) / 2, x1 - width, x2)
    down = (y1, y2 - height, (y1 + y2 - height) / 2)
    tried: list[tuple[float, float, float]] = []
    for step in STEPS:
        away = GAP + step * height
        tried += [(x, y1 - height - away, step) for x in across]
        tried += [(x, y2 + away, step) for x in across]
        tried += [(x1 - width - away, y, step) for y in down]
        tried += [(x2 + away, y, step) for y in down]
    # Inside, where nothing else is free: a label on its object is better than none.
    tried += [(x1 + GAP, y1 + GAP, 8.0), (x2 - width - GAP, y2 - height - GAP, 8.0)]
    places = np.array(tried)
    # Not far beside the image: the margin is as wide as the widest label that stands in it.
    places[:, 0] = np.clip(places[:, 0], -width - GAP, image[0] + GAP)
    places[:, 1] = np.clip(places[:, 1], -4 * (height + GAP), image[1] + 3 * (height + GAP))
    return places[:, :2], places[:, 2]


def _hidden(labels: Array, boxes: Array) -> Array:
    """[C] the shares of the boxes that a label covers, and the share of the label that lies on boxes, added up."""
    covered = _overlaps(labels, boxes)
    area = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1.0)
    own = np.maximum((labels[:, 2:] - labels[:, :2]).prod(axis=1), 1.0)
    hidden: Array = (covered / area).sum(axis=1) + _ON_OBJECTS * np.minimum(1.0, covered.sum(axis=1) / own)
    return hidden


def _outside(labels: Array, image: tuple[float, float]) -> Array:
    size = labels[:, 2:] - labels[:, :2]
    beside = np.maximum(0, -labels[:, 0]) + np.maximum(0, labels[:, 2] - image[0])
    above = np.maximum(0, -labels[:, 1]) + np.maximum(0, labels[:, 3] - image[1])
    share = np.minimum(1, np.stack([beside, above], axis=1) / size)
    outside: Array = share @ np.array([_BESIDE, _ABOVE_OR_BELOW])
    return outside


def _overlaps(labels: Array, boxes: Array) -> Array:
    """[C, 4] and [M, 4] -> [C, M] areas in common."""
    low = np.maximum(labels[:, None, :2], boxes[None, :, :2])
    high = np.minimum(labels[:, None, 2:], boxes[None, :, 2:])
    areas: Array = np.maximum(high - low, 0).prod(axis=2)
    return areas


def margins(
    places: Sequence[tuple[float, float] | None], sizes: Array, image: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Pixels to add to an image at its left, top, right and bottom, so that all labels are on it."""
    left = top = right = bottom = 0.0
    for place, (width, height) in zip(places, sizes.tolist(), strict=True):
        if place is not None:
            left, top = max(left, -place[0]), max(top, -place[1])
            right = max(right, place[0] + width - image[0])
            bottom = max(bottom, place[1] + height - image[1])
    return int(np.ceil(left)), int(np.ceil(top)), int(np.ceil(right)), int(np.ceil(bottom))
