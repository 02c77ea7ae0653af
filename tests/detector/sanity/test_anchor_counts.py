"""Anchors that match, counted by hand on one box, and the ranges that follow."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from detector.data.coco.index import CocoIndex, load_index, trainable
from detector.runs.assignment import AnchorRanges
from detector.runs.job import AnnotatedFolder, EvalJob, TrainJob
from detector.sanity.anchor_counts import (
    anchor_counts,
    anchor_ranges,
    batch_means,
    dead_levels,
    loss_of_equal_scores,
    own_ranges,
    spread,
)


@pytest.fixture
def index(data: Path) -> CocoIndex:
    return load_index(data, "train2017")


@pytest.fixture
def train(job: EvalJob) -> TrainJob:
    """One anchor of 16 pixels per location, in a convention that puts its centre on the grid."""
    model = replace(job.train.model, scales_per_octave=1, aspect_ratios=(1.0,), anchor_scale=2.0)
    return replace(job.train, model=model, box_convention="modern")


def one_box(*corners: float):
    return lambda boxes, shape: np.array([corners], dtype=np.float64)


def first_with_boxes(index: CocoIndex) -> int:
    return int(np.flatnonzero(np.diff(index.offsets))[0])


def test_box_of_an_anchor_matches_it_and_leaves_its_neighbours_borderline_or_negative(
    train: TrainJob, index: CocoIndex
) -> None:
    # The box is the anchor around (16, 16). Shifted by 8 pixels, IoU is 8 / 24 = 1/3: negative at 0.4.
    counts = anchor_counts(train, index, [first_with_boxes(index)], one_box(8, 8, 24, 24))
    assert counts.tolist() == [[1, 0]]


def test_anchors_between_the_thresholds_are_borderline(train: TrainJob, index: CocoIndex) -> None:
    # Of 20 x 16 pixels around (18, 16): IoU 16/20 with the anchor around (16, 16), 14/22 with the one around (24, 16),
    # 6/30 with the one around (8, 16). With a threshold of 0.7 the second is borderline.
    high = replace(train, matching=replace(train.matching, foreground_iou=0.7, background_iou=0.5))
    counts = anchor_counts(high, index, [first_with_boxes(index)], one_box(8, 8, 28, 24))
    assert counts.tolist() == [[1, 1]]


def test_images_without_boxes_are_left_out(train: TrainJob, index: CocoIndex) -> None:
    empty = np.flatnonzero(np.diff(index.offsets) == 0).tolist()
    assert empty
    assert anchor_counts(train, index, empty).shape == (0, 2)


def test_own_ranges_are_measured_on_a_folder_that_is_neither_coco_nor_generated(
    train: TrainJob, index: CocoIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    positions = trainable(index)
    folder = AnnotatedFolder(
        train_split="train2017", test_split="val2017", num_images=None, train_sha256=None, test_sha256=None
    )
    found = own_ranges(replace(train, data=folder), index, positions)
    counts = anchor_counts(train, index, positions.tolist())
    assert len(counts) < 64
    assert found == anchor_ranges(counts, train.batch.images)
    assert own_ranges(train, index, positions) is None  # a generated set
    monkeypatch.setattr("detector.sanity.anchor_counts.NUM_COCO_CATEGORIES", len(index.category_ids))
    assert own_ranges(replace(train, data=folder), index, positions) is None  # a part of COCO


def test_spread_takes_all_of_few_and_the_ends_of_many() -> None:
    assert spread(np.arange(5), 64).tolist() == [0, 1, 2, 3, 4]
    assert spread(np.arange(100) * 2, 3).tolist() == [0, 100, 198]


def test_ranges_reach_from_half_the_lowest_to_twice_the_highest_mean() -> None:
    counts = np.array([[30, 61]] * 8)
    assert (batch_means(counts, 4) == [30, 61]).all()
    assert anchor_ranges(counts, 4) == AnchorRanges(positives=(15, 60), borderline=(30, 122))


def test_ranges_allow_a_few_where_the_sample_has_none() -> None:
    assert anchor_ranges(np.array([[1, 0]] * 4), 2) == AnchorRanges(positives=(0, 10), borderline=(0, 10))


def test_levels_whose_anchors_match_no_box_are_dead(train: TrainJob, index: CocoIndex) -> None:
    matching = replace(train.matching, allow_low_quality=False)
    large = replace(train, matching=matching, model=replace(train.model, anchor_scale=64.0))
    first, last = train.model.fpn_levels
    dead, looked = dead_levels(large, index, range(index.num_images))
    assert dead == list(range(first, last + 1))
    assert looked == len(np.flatnonzero(np.diff(index.offsets)))  # all with a box


def test_the_loss_of_equal_scores_is_that_of_the_defaults(job: EvalJob, index: CocoIndex) -> None:
    """4 ln(1 + e^3) / 6 for each image with a positive anchor."""
    for pairing in ("dr", "worst_case"):
        train = replace(job.train, loss=replace(job.train.loss, pairing=pairing))
        found = loss_of_equal_scores(train, index, range(index.num_images))
        assert found == pytest.approx(4 * math.log(1 + math.exp(3)) / 6)
    assert loss_of_equal_scores(job.train, index, []) is None


def test_no_level_is_dead_where_no_image_has_a_box(train: TrainJob, index: CocoIndex) -> None:
    assert dead_levels(train, index, np.flatnonzero(np.diff(index.offsets) == 0).tolist()) == ([], 0)


def test_levels_whose_anchors_match_a_box_are_alive_and_the_rest_is_not_looked_at(
    job: EvalJob, index: CocoIndex
) -> None:
    """The tiny profile's anchors, on shapes of 64 pixels instead of 96."""
    assert dead_levels(job.train, index, range(index.num_images))[0] == [5]
    without_p5 = replace(job.train, model=replace(job.train.model, fpn_levels=(3, 4)))
    dead, looked = dead_levels(without_p5, index, range(index.num_images))
    assert dead == []
    assert looked < 5
