"""How many anchors per image match on a data set: what a profile's ``anchor_ranges`` are taken from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from msgspec.structs import replace
from numpy.typing import NDArray

from detector.data.coco.index import CocoIndex
from detector.data.coco.releases import NUM_COCO_CATEGORIES
from detector.data.transforms import resized_size
from detector.geometry.boxes import trainable_corners
from detector.geometry.padding import Shape, padded_shape
from detector.model.anchors import AnchorSettings, grid_anchors
from detector.model.assign import assign_anchors
from detector.runs.assignment import AnchorRanges
from detector.runs.job import AnnotatedFolder, MatchSettings, TrainJob
from detector.sanity.first_batch import BORDERLINE_IOU
from drloss.labels import BACKGROUND, IGNORED
from drloss.registry import GroupCounts, initial_value

Boxes = NDArray[np.float64]
Change = Callable[[Boxes, Shape], Boxes]
NUM_BATCHES = 2000
# Batches that the sample does not show: a range reaches from half the lowest mean to twice the highest.
MARGIN = 2.0
SAMPLE = 64  # images of which a data set's own ranges are measured


def anchor_counts(
    job: TrainJob, index: CocoIndex, positions: Iterable[int], change: Change | None = None
) -> NDArray[np.int64]:
    """Anchors of the images at ``positions``, resized and padded as in the job's training, each image alone.

    Returns [M, 2] int64: positive anchors, and those with an IoU between 0.4 and the positives'; images without a box
    to train on are left out. change: called with the corners in the resized image [G, 4] and that image's (H, W);
    gives other boxes, to see what a mistake in reading them would do.
    """
    matching = replace(job.matching, background_iou=min(BORDERLINE_IOU, job.matching.foreground_iou))
    found = []
    for boxes, shape in _resized(job, index, positions):
        labels = _labels(
            job, torch.cat(anchors_of(job, shape)), boxes if change is None else change(boxes, shape), matching
        )
        found.append((int((labels >= 0).sum()), int((labels == IGNORED).sum())))
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def dead_levels(job: TrainJob, index: CocoIndex, positions: Iterable[int]) -> tuple[list[int], int]:
    """The pyramid's levels without any positive anchor in the images at ``positions``, and how many were looked at.

    Looks no further than it must; images as for ``anchor_counts``. No level is dead where no image has a box.
    """
    first, last = job.model.fpn_levels
    dead, looked = list(range(first, last + 1)), 0
    for boxes, shape in _resized(job, index, positions):
        looked += 1
        levels = anchors_of(job, shape)
        positive = _labels(job, torch.cat(levels), boxes, job.matching) >= 0
        alive = [bool(part.any()) for part in torch.split(positive, [len(level) for level in levels])]
        dead = [level for level in dead if not alive[level - first]]
        if not dead:
            break
    return (dead, looked) if looked else ([], 0)


def loss_of_equal_scores(job: TrainJob, index: CocoIndex, positions: Iterable[int]) -> float | None:
    """The classification loss on the images at ``positions`` where every score is the prior; None where not known.

    The mean over groups of ``images_per_group`` images; images as for ``anchor_counts``.
    """
    num_classes, size = len(index.category_ids), job.batch.images_per_group
    found = []
    for boxes, shape in _resized(job, index, positions):
        labels = _labels(job, torch.cat(anchors_of(job, shape)), boxes, job.matching)
        positive, negative = int((labels >= 0).sum()), int((labels == BACKGROUND).sum())
        found.append((positive, negative * num_classes + positive * (num_classes - 1)))
    groups = [found[first : first + size] for first in range(0, len(found) - size + 1, size)]
    counts = [
        GroupCounts(tuple(positive for positive, _ in group), sum(p for p, _ in group), sum(n for _, n in group))
        for group in groups
    ]
    loss = job.loss
    if getattr(loss, "pairing", None) == "worst_case":
        # Its first value is not known, since it is that of the extremes; of equal scores every one is an extreme.
        loss = replace(loss, pairing="dr")
    return initial_value(loss, job.model.prior_probability, counts) if counts else None


def _resized(job: TrainJob, index: CocoIndex, positions: Iterable[int]) -> Iterator[tuple[Boxes, Shape]]:
    """Of each image with a box to train on: its boxes [G, 4] and its (H, W), resized to the job's last short side."""
    for position in positions:
        rows = index.annotations_of(position)
        width, height = int(index.widths[position]), int(index.heights[position])
        boxes, kept = trainable_corners(index.boxes[rows][~index.crowd[rows]], width, height, job.box_convention)
        if not kept.any():
            continue
        side = job.augmentation.short_sides[-1]
        resized = resized_size(width, height, short_side=side, max_size=job.augmentation.max_size)
        yield boxes[kept] * np.tile([resized[0] / width, resized[1] / height], 2), resized[::-1]


def _labels(job: TrainJob, anchors: torch.Tensor, boxes: Boxes, matching: MatchSettings) -> torch.Tensor:
    """[R] 0 where an anchor is positive, else BACKGROUND or IGNORED."""
    tensor = torch.from_numpy(boxes.astype(np.float32))
    nobody = torch.zeros(len(tensor), dtype=torch.int64)
    return assign_anchors(anchors, tensor, nobody, matching, job.box_convention)[0]


def batch_means(counts: NDArray[np.int64], batch: int) -> NDArray[np.float64]:
    """Means per image over 2,000 random batches of ``batch`` images: [2000, 2]; the same at each call."""
    draw = np.random.default_rng(0)
    return np.array([counts[draw.choice(len(counts), batch)].mean(axis=0) for _ in range(NUM_BATCHES)])


def anchor_ranges(counts: NDArray[np.int64], batch: int) -> AnchorRanges:
    """What the mean of a batch can be: from half of what was seen to twice of it, in whole numbers."""
    means = batch_means(counts, batch)
    # A set of few borderline anchors may show none in the sample.
    highest = np.maximum(np.ceil(means.max(axis=0) * MARGIN), 10).tolist()
    lowest = np.floor(means.min(axis=0) / MARGIN).tolist()
    return AnchorRanges(positives=(lowest[0], highest[0]), borderline=(lowest[1], highest[1]))


def spread(positions: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """``count`` of the positions, or all of fewer, spread evenly over them."""
    return positions[np.unique(np.linspace(0, len(positions) - 1, count).round().astype(np.int64))]


def own_ranges(job: TrainJob, index: CocoIndex, positions: NDArray[np.int64]) -> AnchorRanges | None:
    """The ranges of a data set that is not COCO's, measured on some of its images at ``positions``; the same each time.

    None for COCO, a part of it, and the generated sets: a profile has measured those, and boxes that were read wrongly
    would shift what is measured here as well.
    """
    if not isinstance(job.data, AnnotatedFolder) or len(index.category_ids) == NUM_COCO_CATEGORIES:
        return None
    counts = anchor_counts(job, index, spread(positions, SAMPLE).tolist())
    return anchor_ranges(counts, job.batch.images) if len(counts) else None


def anchors_of(job: TrainJob, shape: Shape) -> tuple[torch.Tensor, ...]:
    """The anchors of each level [R_l, 4] for an image of (H, W) = ``shape``, which is padded alone."""
    first, last = job.model.fpn_levels
    strides = tuple(2**level for level in range(first, last + 1))
    padded = padded_shape([shape])
    shapes = tuple((-(-padded[0] // stride), -(-padded[1] // stride)) for stride in strides)
    settings = AnchorSettings.of(job.model, job.box_convention)
    return grid_anchors(shapes, strides, settings, image_shape=padded)
