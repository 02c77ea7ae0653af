"""The bootstrap over images against scoring each resample anew, and what pairing does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from detector.data.coco.index import CocoIndex
from detector.evaluation.detections import Detections
from detector.evaluation.matches import Matches
from detector.evaluation.scoring import coco_metrics_and_matches
from harness.registry.declarations import METRICS
from harness.verdicts.images import RESAMPLES, resampled, same_images, standard_errors
from tests.detector.evaluation.test_reweighted import IMAGES, random_scene, repeated


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[CocoIndex, Detections]:
    return random_scene(tmp_path_factory.mktemp("scene"), IMAGES, 0)


def matches_of(scene: tuple[CocoIndex, Detections]) -> Matches:
    return coco_metrics_and_matches(*scene)[1]


def draws(count: int) -> NDArray[np.int64]:
    """The documented draws: multinomial, of the seed 0."""
    return np.random.default_rng(0).multinomial(IMAGES, np.full(IMAGES, 1 / IMAGES), count)


def test_standard_errors_are_those_of_resamples_that_were_scored_anew(
    scene: tuple[CocoIndex, Detections], tmp_path: Path
) -> None:
    count = 12
    rows = []
    for number, weights in enumerate(draws(count)):
        (folder := tmp_path / str(number)).mkdir()
        rows.append(repeated(*scene, weights, folder))
    expected = np.nanstd(np.array(rows), axis=0, ddof=1)
    (found,) = resampled([matches_of(scene)], resamples=count)
    errors = standard_errors(found)
    assert tuple(errors) == METRICS
    np.testing.assert_allclose(list(errors.values()), expected, rtol=1e-12)
    assert errors["AP"] > 1


def test_an_evaluation_against_itself_has_no_noise_in_its_difference(scene: tuple[CocoIndex, Detections]) -> None:
    a, b = resampled([matches_of(scene), matches_of(scene)])
    assert len(a) == RESAMPLES
    assert set(standard_errors(a - b).values()) == {0.0}


def test_pairing_takes_away_the_noise_that_both_evaluations_share(scene: tuple[CocoIndex, Detections]) -> None:
    index, found = scene
    kept = np.arange(len(found)) % 9 != 0  # the same detector, a little worse
    worse = Detections(found.image_ids[kept], found.category_ids[kept], found.boxes[kept], found.scores[kept])
    a, b = resampled([matches_of(scene), matches_of((index, worse))])
    paired = standard_errors(a - b)["AP"]
    assert paired < 0.7 * np.hypot(standard_errors(a)["AP"], standard_errors(b)["AP"])


def test_a_size_that_no_image_has_is_unknown() -> None:
    column = np.array([[np.nan], [np.nan], [1.0]])
    errors = standard_errors(np.repeat(column, 6, axis=1))
    assert set(errors.values()) == {None}


def test_evaluations_of_other_images_have_no_common_resample(
    scene: tuple[CocoIndex, Detections], tmp_path: Path
) -> None:
    other = random_scene(tmp_path, IMAGES - 1, 1)
    assert not same_images([matches_of(scene), matches_of(other)])
    with pytest.raises(ValueError, match="different images"):
        resampled([matches_of(scene), matches_of(other)])
