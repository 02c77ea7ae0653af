"""Every backend, to the last bit, against pycocotools on the files themselves."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.data.coco.index import CocoIndex, load_index, select
from detector.evaluation.detections import Detections
from detector.evaluation.scoring import Backend, coco_stats
from tests.scored import SIDE, detections, stats_of_the_files, truth

BACKENDS: tuple[Backend, ...] = ("pycocotools", "ultrafast", "hotcoco")
# About COCO's borders of small and large, 32^2 and 96^2.
AREAS = (0.0, 100.0, 1023.9999999999999, 1024.0, 1024.0000000000002, 9215.999999999998, 9216.0, 9216.000000000002, 5e4)
CATEGORIES = [2, 3, 90]


def assert_all_backends_agree(index: CocoIndex, found: Detections) -> None:
    expected = stats_of_the_files(index, found).tolist()
    assert {backend: coco_stats(index, found, backend).tolist() for backend in BACKENDS} == dict.fromkeys(
        BACKENDS, expected
    )


def perturbed(index: CocoIndex, rng: np.random.Generator, copies: int = 3) -> Detections:
    """Each box of the truth a few times, moved and resized, some with another label; scores to one digit, so tied."""
    rows = np.repeat(np.arange(len(index.boxes)), copies)
    sides = index.sides[rows] * np.exp(rng.normal(0, 0.2, (len(rows), 2)))
    corners = index.boxes[rows, :2] + rng.normal(0, 0.1, sides.shape) * sides
    labels = np.where(
        rng.random(len(rows)) < 0.1, rng.integers(0, len(index.category_ids), len(rows)), index.labels[rows]
    )
    return Detections(
        index.image_ids[index.positions()[rows]],
        index.category_ids[labels],
        np.concatenate([corners, sides], axis=1),
        rng.random(len(rows)).round(1),
    )


def random_problem(root: Path, seed: int, boxes: int, found: int) -> tuple[CocoIndex, Detections]:
    """On a grid of 8 pixels, where overlaps meet thresholds exactly; crowds; sizes from nothing to beyond the image.

    Image 4 has no truth, image 9 no detections, category 90 no truth.
    """
    rng = np.random.default_rng(seed)

    def grid(count: int, low: int, high: int) -> list[list[float]]:
        return (8.0 * rng.integers(low, high, (count, 2))).tolist()

    rows = [
        (i, rng.choice([5, 9]).item(), rng.choice(CATEGORIES[:2]).item(), [*corner, *sides], area, int(crowd))
        for i, corner, sides, area, crowd in zip(
            range(1, boxes + 1),
            grid(boxes, 0, 40),
            grid(boxes, 0, 40),
            rng.choice(AREAS, boxes).tolist(),
            rng.random(boxes) < 0.2,
            strict=True,
        )
    ]
    results = [
        (rng.choice([4, 5]).item(), rng.choice(CATEGORIES).item(), [*corner, *sides], score)
        for corner, sides, score in zip(
            grid(found, -10, 60), grid(found, 0, 90), rng.choice([0.0, 0.25, 0.5, 1.0], found).tolist(), strict=True
        )
    ]
    return truth(root, [5, 4, 9], CATEGORIES, rows), detections(*results)


@pytest.mark.coco
def test_backends_agree_on_real_annotations(coco_tiny: Path) -> None:
    index = load_index(coco_tiny, "val2017")
    assert index.crowd.any()
    assert_all_backends_agree(index, perturbed(index, np.random.default_rng(0)))


@pytest.mark.coco
def test_backends_agree_on_some_of_the_images(coco_tiny: Path) -> None:
    index = load_index(coco_tiny, "train2017")
    some = select(index, np.arange(0, index.num_images, 3))
    assert_all_backends_agree(some, perturbed(some, np.random.default_rng(1)))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), boxes=st.integers(0, 40), found=st.integers(1, 300))
def test_backends_agree_on_random_problems(seed: int, boxes: int, found: int) -> None:
    with TemporaryDirectory() as folder:
        assert_all_backends_agree(*random_problem(Path(folder), seed, boxes, found))


def test_backends_agree_beyond_100_detections_an_image(tmp_path: Path) -> None:
    """The right one has rank 101 of its image and category: it counts for nothing."""
    index = truth(tmp_path, [1], [1], [(7, 1, 1, [100, 100, 40, 40], 1600, 0)])
    wrong = [(1, 1, [float(i), 0.0, 5.0, 5.0], 0.9) for i in range(100)]
    right = (1, 1, [100.0, 100.0, 40.0, 40.0], 0.1)
    assert coco_stats(index, detections(*wrong[1:], right))[8] == 1  # recall, of rank 100
    assert coco_stats(index, detections(*wrong, right))[8] == 0
    assert_all_backends_agree(index, detections(*wrong[1:], right))
    assert_all_backends_agree(index, detections(*wrong, right))


@pytest.mark.parametrize(
    "box",
    [
        [0.0, 0.0, 1e-9, 1e-9],
        [-5e4, -5e4, 1e5, 1e5],
        [float(SIDE), float(SIDE), 50.0, 50.0],
        [10.0, 10.0, 0.0, 30.0],
        [40.0, 40.0, -30.0, -30.0],
        [10.1, 10.2, 30.3, 30.4],  # x + w - x is not w
    ],
)
def test_backends_agree_on_boxes_of_odd_sizes(tmp_path: Path, box: list[float]) -> None:
    rows = [(1, 1, 1, [10.1, 10.2, 30.3, 30.4], 921.12, 0), (2, 1, 1, [0, 0, SIDE, SIDE], 1e5, 0)]
    index = truth(tmp_path, [1], [1], rows)
    assert_all_backends_agree(index, detections((1, 1, box, 0.5), (1, 1, [0.0, 0.0, 600.0, 600.0], 0.5)))


def test_truth_has_the_width_of_the_file_not_the_difference_of_corners(tmp_path: Path) -> None:
    """The detection is its left half and matches at 0.5; of the wider difference of corners it would be less."""
    x, width = 0.03, 0.24
    assert x + width - x > width
    index = truth(tmp_path, [1], [1], [(1, 1, 1, [x, 0, width, 10], 2.4, 0)])
    half = detections((1, 1, [x, 0.0, width / 2, 10.0], 0.5))
    assert coco_stats(index, half)[1] == pytest.approx(1)  # AP50
    assert_all_backends_agree(index, half)
