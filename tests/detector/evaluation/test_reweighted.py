"""AP from matches: equal to pycocotools' of the images as they are, and of sets in which images are repeated."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from detector.data.coco.index import CocoIndex
from detector.errors import DataError
from detector.evaluation.detections import Detections
from detector.evaluation.matches import Matches, read_matches, write_matches
from detector.evaluation.reweighted import AP_METRICS, reweighted_ap
from detector.evaluation.scoring import coco_metrics, coco_metrics_and_matches
from tests.detector.evaluation.test_scoring_backends import random_problem
from tests.scored import SIDE, detections, truth

CATEGORIES = [3, 7, 20]
IMAGES = 12


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[CocoIndex, Detections]:
    """Boxes of all sizes, some of them crowds, found well and badly; an image without any box."""
    return random_scene(tmp_path_factory.mktemp("scene"), IMAGES, 0)


def random_scene(root: Path, images: int, seed: int, crowds: float = 0.1) -> tuple[CocoIndex, Detections]:
    """Detections with different scores."""
    rng = np.random.default_rng(seed)
    rows, found = [], []
    for number in range(6 * images):
        image = int(rng.integers(1, images)) * 10  # none in the image 0
        size = np.exp(rng.uniform(2, 5.5, 2)).round(2)
        corner = (rng.random(2) * (SIDE - size)).round(2)
        category = CATEGORIES[int(rng.integers(0, 2))] if number else CATEGORIES[2]
        box = [*corner.tolist(), *size.tolist()]
        rows.append((number + 1, image, category, box, float(np.prod(size)) * 0.9, int(rng.random() < crowds)))
        for _ in range(int(rng.integers(0, 4))):
            moved = np.array(box) + rng.normal(0, 0.12, 4) * np.array([*size, *size])
            guess = category if rng.random() < 0.8 else int(rng.choice(CATEGORIES))
            found.append((image, guess, [*moved[:2], *np.abs(moved[2:])], float(np.float32(rng.random()))))
    found += [(0, 3, [5.0, 5.0, 40.0, 40.0], 0.5)]
    return truth(root, [10 * i for i in range(images)], CATEGORIES, rows), detections(*found)


def metrics_of(index: CocoIndex, found: Detections) -> tuple[dict[str, float | None], Matches]:
    return coco_metrics_and_matches(index, found)


def as_row(metrics: dict[str, float | None]) -> NDArray[np.float64]:
    """[6], NaN for None."""
    return np.array([metrics[name] for name in AP_METRICS], dtype=np.float64)


def repeated(index: CocoIndex, found: Detections, weights: NDArray[np.int64], root: Path) -> NDArray[np.float64]:
    """[6] AP of a set that really holds each image as often as its weight says, scored by pycocotools."""
    images, rows, copies = [], [], []
    for position, weight in enumerate(weights.tolist()):
        for _ in range(weight):
            new = len(images) + 1
            images.append(new)
            for k in range(*index.annotations_of(position).indices(len(index.boxes))):
                box = [*index.boxes[k, :2].tolist(), *index.sides[k].tolist()]
                category = int(index.category_ids[index.labels[k]])
                rows.append((len(rows) + 1, new, category, box, float(index.areas[k]), int(index.crowd[k])))
            for m in np.flatnonzero(found.image_ids == index.image_ids[position]):
                copies.append((new, int(found.category_ids[m]), found.boxes[m].tolist(), float(found.scores[m])))
    return as_row(coco_metrics(truth(root, images, CATEGORIES, rows), detections(*copies)))


def test_reweighted_ap_at_weight_1_is_pycocotools_to_the_last_bit(scene: tuple[CocoIndex, Detections]) -> None:
    metrics, matches = metrics_of(*scene)
    assert metrics == coco_metrics(*scene)
    assert 1 < metrics["AP"] < 99
    (row,) = reweighted_ap(matches, np.ones((1, IMAGES), np.int64))
    assert row.tolist() == as_row(metrics).tolist()


@pytest.mark.parametrize("seed", range(4))
def test_reweighted_ap_with_tied_scores_and_borders_is_pycocotools_to_the_last_bit(seed: int, tmp_path: Path) -> None:
    index, found = random_problem(tmp_path, seed, 60, 150)
    metrics, matches = metrics_of(index, found)
    (row,) = reweighted_ap(matches, np.ones((1, index.num_images), np.int64))
    assert row.tolist() == pytest.approx(as_row(metrics).tolist(), rel=0, abs=0, nan_ok=True)


@pytest.mark.parametrize("seed", range(6))
def test_reweighted_ap_equals_the_scores_of_a_set_that_repeats_its_images(
    scene: tuple[CocoIndex, Detections], seed: int, tmp_path: Path
) -> None:
    index, found = scene
    weights = np.random.default_rng(seed).multinomial(IMAGES, np.full(IMAGES, 1 / IMAGES))
    assert weights.max() > 1
    assert weights.min() == 0
    expected = repeated(index, found, weights, tmp_path)
    (row,) = reweighted_ap(metrics_of(index, found)[1], weights[None])
    np.testing.assert_allclose(row, expected, rtol=0, atol=1e-12)


def test_reweighted_ap_of_images_without_objects_of_a_size_is_nan(tmp_path: Path) -> None:
    rows = [(1, 1, 3, [0, 0, 10, 10], 100, 0), (2, 2, 3, [0, 0, 200, 200], 40000, 0)]
    index = truth(tmp_path, [1, 2], [3], rows)
    _, matches = metrics_of(index, detections((1, 3, [0.0, 0, 10, 10], 0.5), (2, 3, [0.0, 0, 9, 9], 0.4)))
    small, large = reweighted_ap(matches, np.array([[1, 0], [0, 1]]))
    np.testing.assert_allclose(small, [100, 100, 100, 100, np.nan, np.nan])
    np.testing.assert_allclose(large, [0, 0, 0, np.nan, np.nan, 0])


def test_reweighted_ap_of_no_detections_is_0(tmp_path: Path) -> None:
    index = truth(tmp_path, [1], [3], [(1, 1, 3, [0, 0, 10, 10], 100, 0)])
    _, matches = metrics_of(index, detections())
    assert reweighted_ap(matches, np.ones((1, 1), np.int64))[0, 0] == 0


def test_reweighted_ap_takes_the_best_100_of_an_image_and_class(tmp_path: Path) -> None:
    index = truth(tmp_path, [1], [3], [(1, 1, 3, [0, 0, 50, 50], 2500, 0)])
    wrong = [(1, 3, [300.0, 300.0, 20.0, 20.0], 0.9 - i / 1000) for i in range(100)]
    found = detections((1, 3, [0.0, 0, 50, 50], 0.1), *wrong)
    metrics, matches = metrics_of(index, found)
    assert metrics["AP"] == 0
    assert len(matches.scores) == 100
    assert reweighted_ap(matches, np.ones((1, 1), np.int64))[0, 0] == 0


def test_reweighted_ap_does_not_depend_on_the_number_of_threads(scene: tuple[CocoIndex, Detections]) -> None:
    matches = metrics_of(*scene)[1]
    weights = np.random.default_rng(1).integers(0, 3, (40, IMAGES))
    one, three = (reweighted_ap(matches, weights, threads=threads) for threads in (1, 3))
    np.testing.assert_array_equal(one, three)


def test_reweighted_ap_refuses_weights_of_other_images(scene: tuple[CocoIndex, Detections]) -> None:
    with pytest.raises(ValueError, match=r"weights must be \[R, 12\], got \[1, 11\]"):
        reweighted_ap(metrics_of(*scene)[1], np.ones((1, 11), np.int64))


def test_matches_come_back_from_their_file(scene: tuple[CocoIndex, Detections], tmp_path: Path) -> None:
    matches = metrics_of(*scene)[1]
    write_matches(tmp_path / "matches.npz", matches)
    read = read_matches(tmp_path / "matches.npz")
    for field in fields(Matches):
        np.testing.assert_array_equal(getattr(read, field.name), getattr(matches, field.name), strict=True)
    assert read.scores.dtype == np.float32


def test_read_matches_names_a_damaged_file(scene: tuple[CocoIndex, Detections], tmp_path: Path) -> None:
    path = tmp_path / "matches.npz"
    write_matches(path, metrics_of(*scene)[1])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"matches.npz does not hold the matches of an evaluation"):
        read_matches(path)
