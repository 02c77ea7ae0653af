"""What a training's matching makes of one image: positive and ignored anchors of each box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from detector.data.coco.index import CocoIndex
from detector.data.transforms import resized_size
from detector.geometry.boxes import PIXEL, trainable_corners
from detector.model.assign import assign_anchors
from detector.runs.job import TrainJob
from detector.sanity.anchor_counts import anchors_of
from drloss.labels import IGNORED


@dataclass(frozen=True, eq=False)
class Matched:
    """G boxes of one image and R anchors. Places are in pixels of the original image.

    size: (width, height) that the image is resized to. trained: whether a box is trained on (no crowd, with an area).
    """

    size: tuple[int, int]
    num_anchors: int
    trained: NDArray[np.bool_]  # [G]
    num_positive: NDArray[np.int64]  # [G] anchors that learn the box
    num_ignored: NDArray[np.int64]  # [G] anchors that overlap it most and are neither positive nor background
    positives: NDArray[np.float64]  # [P, 2] centres
    boxes_of_positives: NDArray[np.int64]  # [P] which box each learns
    ignored: NDArray[np.float64]  # [I, 2] centres

    @property
    def unmatched(self) -> NDArray[np.bool_]:
        """[G] boxes that are trained on and that no anchor learns."""
        unmatched: NDArray[np.bool_] = self.trained & (self.num_positive == 0)
        return unmatched


def matched_anchors(job: TrainJob, index: CocoIndex, position: int) -> Matched:
    """The anchors of the image at ``position``, resized and padded as in the job's training, alone and not flipped.

    Of a training with several image sizes the last is taken.
    """
    rows = index.annotations_of(position)
    width, height = int(index.widths[position]), int(index.heights[position])
    crowd = index.crowd[rows]
    corners, has_area = trainable_corners(index.boxes[rows], width, height, job.box_convention)
    trained = has_area & ~crowd
    side = job.augmentation.short_sides[-1]
    size = resized_size(width, height, short_side=side, max_size=job.augmentation.max_size)
    scale = np.array([size[0] / width, size[1] / height])
    anchors = torch.cat(anchors_of(job, size[::-1]))
    boxes = torch.from_numpy((corners[trained] * np.tile(scale, 2)).astype(np.float32))
    nobody = torch.zeros(len(boxes), dtype=torch.int64)
    labels, best = (part.numpy() for part in assign_anchors(anchors, boxes, nobody, job.matching, job.box_convention))
    edges = anchors.numpy().astype(np.float64)
    edges[:, 2:] += PIXEL[job.box_convention]
    centres = (edges[:, :2] + edges[:, 2:]) / 2 / scale
    which = np.flatnonzero(trained)
    positive, ignored = labels >= 0, labels == IGNORED
    owners = which[best[positive]] if len(which) else np.zeros(0, np.int64)
    losers = which[best[ignored]] if len(which) else np.zeros(0, np.int64)
    return Matched(
        size=size,
        num_anchors=len(anchors),
        trained=trained,
        num_positive=np.bincount(owners, minlength=len(trained)),
        num_ignored=np.bincount(losers, minlength=len(trained)),
        positives=centres[positive],
        boxes_of_positives=owners,
        ignored=centres[ignored],
    )
