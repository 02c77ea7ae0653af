"""What is right on an image: as pycocotools matches, and worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detector.evaluation.detections import Detections
from detector.evaluation.pictures.outcome import FALSE, IGNORED, TRUE, best_threshold, image_ap, outcomes
from detector.evaluation.scoring import coco_metrics_and_matches
from tests.scored import detections, truth

BOX = [100.0, 100, 100, 100]


def moved(by: float) -> list[float]:
    return [100 + by, 100, 100, 100]


def test_matching_is_that_of_pycocotools(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = []
    for number in range(90):
        corner, side = rng.integers(0, 60, 2), rng.integers(20, 60, 2)
        box = [float(v) for v in (*corner, *side)]
        crowd = int(rng.random() < 0.15)
        rows.append((number + 1, int(rng.integers(1, 9)), int(rng.integers(1, 4)), box, box[2] * box[3], crowd))
    index = truth(tmp_path, list(range(1, 11)), [1, 2, 3], rows)
    found = []
    for _ in range(4):
        for _, image, category, box, _, _ in rows:
            shifted = [float(v) for v in np.array(box) + rng.integers(-8, 9, 4)]
            shifted[2:] = [max(v, 1.0) for v in shifted[2:]]
            found.append((image, category, shifted, float(rng.integers(1, 20)) / 20))  # many scores are equal
    found += [(1, 1, [5.0, 5, 30, 30], 0.01)] * 120  # more than count
    given = detections(*found)
    _, matches = coco_metrics_and_matches(index, given)
    every = outcomes(index, given)
    for image, outcome in enumerate(every):
        mine = matches.images == image
        right = (matches.matched[0, mine] & 1).astype(bool) & ~(matches.ignored[0, mine] & 1).astype(bool)
        ignored = (matches.ignored[0, mine] & 1).astype(bool)
        scores = matches.scores[mine]
        for kind, theirs in ((TRUE, right), (IGNORED, ignored)):
            np.testing.assert_allclose(np.sort(outcome.scores[outcome.kinds == kind]), np.sort(scores[theirs]))
        assert (outcome.found_by >= 0).sum() == right.sum()
    assert sum((one.kinds == IGNORED).sum() for one in every) > 5


def test_ap_of_an_image_by_hand(tmp_path: Path) -> None:
    index = truth(tmp_path, [1, 2], [7], [(1, 1, 7, BOX, 1e4, 0), (2, 1, 7, [300.0, 300, 50, 50], 2500, 0)])
    given = detections(
        (1, 7, [500.0, 0, 9, 9], 0.9), (1, 7, moved(20), 0.8), (1, 7, moved(1), 0.7), (1, 7, [300.0, 300, 50, 50], 0.6)
    )
    one, empty = outcomes(index, given)
    assert one.kinds.tolist() == [FALSE, TRUE, FALSE, TRUE]  # of two on one object the better scored is right
    assert one.found_by.tolist() == [1, 3]
    assert image_ap(one) == pytest.approx((2 / 4 + 2 / 4) / 2)  # precision 1/2 at the first is 2/4 later on
    assert image_ap(empty) is None
    assert one.missed(0.7).tolist() == [False, True]
    assert one.missed(0.85).tolist() == [True, True]


def test_boxes_are_drawn_from_the_score_of_the_best_f1(tmp_path: Path) -> None:
    index = truth(tmp_path, [1], [7], [(1, 1, 7, BOX, 1e4, 0), (2, 1, 7, [300.0, 300, 50, 50], 2500, 0)])
    far = [500.0, 0, 9, 9]
    given = detections((1, 7, BOX, 0.9), (1, 7, [300.0, 300, 50, 50], 0.5), (1, 7, far, 0.5), (1, 7, far, 0.1))
    assert best_threshold(outcomes(index, given)) == 0.5  # 2 * 2 / (3 + 2); 0.9 gives 2 * 1 / (1 + 2)
    assert best_threshold(outcomes(index, detections())) == 1.0
    assert outcomes(index, detections())[0].missed(0.0).all()


def test_ignored_detections_and_crowds_count_neither_way(tmp_path: Path) -> None:
    index = truth(tmp_path, [1], [7, 8], [(1, 1, 7, [0.0, 0, 600, 600], 1e5, 1), (2, 1, 8, BOX, 1e4, 0)])
    (one,) = outcomes(index, detections((1, 7, BOX, 0.9), (1, 8, BOX, 0.8)))
    assert one.kinds.tolist() == [IGNORED, TRUE]
    assert (one.num_objects, image_ap(one)) == (1, 1.0)
    assert not one.missed(0.95)[0]


def test_detections_keep_their_own_order_where_scores_are_equal(tmp_path: Path) -> None:
    index = truth(tmp_path, [1], [7], [(1, 1, 7, BOX, 1e4, 0)])
    given = Detections(np.array([1, 1]), np.array([7, 7]), np.array([moved(2), moved(1)]), np.array([0.5, 0.5]))
    assert outcomes(index, given)[0].found_by.tolist() == [0]
