"""The anchors of one image: as the training's own matching counts them, and where they lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from detector.data.coco.index import load_index
from detector.evaluation.pictures.anchors import matched_anchors
from detector.runs.job import TrainJob
from detector.sanity.anchor_counts import anchor_counts
from support.micro import micro_job, write_experiments
from tests.own_roots import root_of


@pytest.fixture
def job(tmp_path: Path) -> TrainJob:
    return micro_job(write_experiments(tmp_path / "experiments")).train


def test_positive_anchors_are_those_of_the_training(job: TrainJob, tmp_path: Path) -> None:
    boxes = [{"bbox": [4, 5, 20, 16]}, {"bbox": [0, 0, 39, 29], "iscrowd": 1}, {"bbox": [30, 2, 6, 20]}]
    index = load_index(root_of(tmp_path / "root", boxes=boxes), "train")
    found = matched_anchors(job, index, 0)
    assert found.trained.tolist() == [True, False, True]
    assert found.num_positive[1] == 0
    assert found.num_positive.sum() == len(found.positives) == anchor_counts(job, index, [0])[0, 0]
    first = found.positives[found.boxes_of_positives == 0]
    assert np.abs(first - [14, 13]).max() < 10  # around the middle of the box, in the image's own pixels
    assert not found.unmatched.any()


def test_a_box_that_no_anchor_learns_is_known(job: TrainJob, tmp_path: Path) -> None:
    strict = replace(
        job, matching=replace(job.matching, allow_low_quality=False, foreground_iou=0.9, background_iou=0.2)
    )
    index = load_index(root_of(tmp_path / "root", boxes=[{"bbox": [1, 1, 38, 2]}, {"bbox": [4, 5, 20, 16]}]), "train")
    found = matched_anchors(strict, index, 0)
    assert found.unmatched[0]
    assert len(found.ignored) == found.num_ignored.sum() > 0


def test_an_image_without_boxes_has_no_positives(job: TrainJob, tmp_path: Path) -> None:
    index = load_index(root_of(tmp_path / "root", boxes=[{"bbox": [1, 1, 0, 2]}]), "train")
    found = matched_anchors(job, index, 0)
    assert (len(found.positives), len(found.ignored), found.trained.tolist()) == (0, 0, [False])
