"""What a data set is like: images, classes, sizes, boxes. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.data.coco.index import CocoIndex, trainable

Spread = tuple[float, float, float]  # lowest, median, highest


@dataclass(frozen=True)
class SplitFigures:
    """Figures of one split; lengths in pixels, each spread as (lowest, median, highest).

    ``num_trainable``: images with a box to train on. ``num_boxes``: without crowd regions. ``boxes_per_image``: over
    the trainable images. ``box_sides``: square roots of the boxes' areas, at three points of their distribution: a
    tenth of the boxes are smaller than the first, half than the second, a tenth larger than the third.
    ``relative_sides``: the same, each divided by the short side of its image. ``suffixes``: of the image files.
    """

    images: int
    num_trainable: int
    num_boxes: int
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    widths: Spread
    heights: Spread
    short_sides: Spread
    aspects: Spread  # long side by short side
    boxes_per_image: Spread
    box_sides: Spread
    relative_sides: Spread
    suffixes: tuple[str, ...]


def split_figures(index: CocoIndex) -> SplitFigures:
    """Look at a split. An empty spread is (0, 0, 0)."""
    short, long = np.minimum(index.widths, index.heights), np.maximum(index.widths, index.heights)
    sides = index.boxes[:, 2:] - index.boxes[:, :2]
    kept = ~index.crowd & (sides > 0).all(axis=1)
    positions = trainable(index)
    image_of_box = index.positions()[kept]
    counts = np.bincount(image_of_box, minlength=index.num_images)[positions]
    box_sides = np.sqrt(sides[kept].prod(axis=1))
    return SplitFigures(
        images=index.num_images,
        num_trainable=len(positions),
        num_boxes=int(kept.sum()),
        classes=index.category_names,
        category_ids=tuple(index.category_ids.tolist()),
        widths=_spread(index.widths),
        heights=_spread(index.heights),
        short_sides=_spread(short),
        aspects=_spread(long / np.maximum(short, 1)),
        boxes_per_image=_spread(counts),
        box_sides=_spread(box_sides, 10, 90),
        relative_sides=_spread(box_sides / np.maximum(short[image_of_box], 1), 10, 90),
        suffixes=tuple(sorted({PurePath(name).suffix.lower() for name in index.file_names})),
    )


def _spread(values: NDArray[Any], low: float = 0, high: float = 100) -> Spread:
    if not len(values):
        return 0.0, 0.0, 0.0
    first, middle, last = np.percentile(values, (low, 50, high))
    return float(first), float(middle), float(last)
