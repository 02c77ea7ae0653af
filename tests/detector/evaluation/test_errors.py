"""AP lost by kind of error: each kind by hand, and against the authors' own tool on random scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import asdict

from detector.evaluation.errors import lost_ap
from detector.evaluation.scoring import coco_metrics
from tests.detector.evaluation.test_reweighted import IMAGES, random_scene
from tests.scored import detections, truth

KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
# Image 1: a box of category 3 and, far away, one of category 7.
BOXES = [(1, 1, 3, [0, 0, 100, 100], 10000, 0), (2, 1, 7, [300, 300, 100, 100], 10000, 0)]
FIRST, SECOND = (1, 3, [0.0, 0, 100, 100], 0.9), (1, 7, [300.0, 300, 100, 100], 0.8)
CROWD = (3, 1, 3, [450, 0, 150, 150], 22500, 1)


def lost(tmp_path: Path, *found: tuple[int, int, list[float], float], boxes: list[tuple[Any, ...]] = BOXES) -> dict:
    """The kinds that cost anything; of a truth in image 1."""
    index = truth(tmp_path, [1], [3, 7], boxes)
    values = asdict(lost_ap(index, detections(*found)))
    assert tuple(values) == KINDS
    return {kind: pytest.approx(value) for kind, value in values.items() if value > 1e-9}


def test_lost_ap_of_perfect_detections_is_nothing(tmp_path: Path) -> None:
    assert lost(tmp_path, FIRST, SECOND) == {}


def test_lost_ap_to_a_wrong_category_is_won_by_the_right_one(tmp_path: Path) -> None:
    # The box of 7 was called 3, above the right one: 3 has a precision of 1/2, 7 has nothing.
    assert lost(tmp_path, FIRST, (1, 3, [300.0, 300, 100, 100], 0.95)) == {"classification": 25 + 50}


def test_lost_ap_to_a_bad_place_is_won_by_the_right_one(tmp_path: Path) -> None:
    # IoU 50 / 150.
    assert lost(tmp_path, FIRST, (1, 7, [350.0, 300, 100, 100], 0.8)) == {"localisation": 50}


def test_lost_ap_of_several_bad_places_of_one_box_is_won_by_the_best_scored(tmp_path: Path) -> None:
    placed = [(1, 7, [350.0, 300, 100, 100], 0.8), (1, 7, [340.0, 300, 100, 100], 0.7)]
    assert lost(tmp_path, FIRST, *placed) == {"localisation": 50}


def test_lost_ap_to_a_bad_place_of_a_box_that_was_found_is_won_by_its_removal(tmp_path: Path) -> None:
    assert lost(tmp_path, FIRST, SECOND, (1, 7, [350.0, 300, 100, 100], 0.95)) == {"localisation": 25}


def test_lost_ap_to_both_wrong_category_and_bad_place(tmp_path: Path) -> None:
    assert lost(tmp_path, FIRST, SECOND, (1, 3, [350.0, 300, 100, 100], 0.95)) == {"both": 25}


def test_lost_ap_to_a_duplicate_is_won_where_a_later_box_is_found(tmp_path: Path) -> None:
    boxes = [*BOXES, (3, 1, 3, [0, 300, 100, 100], 10000, 0)]
    again = (1, 3, [2.0, 0, 100, 100], 0.85)
    later = (1, 3, [0.0, 300, 100, 100], 0.5)
    # Of category 3: precision 1 up to recall 1/2 (51 of 101 points), then 2/3 instead of 1.
    assert lost(tmp_path, FIRST, again, later, SECOND, boxes=boxes) == {"duplicate": 50 / 3 * 50 / 101}


def test_lost_ap_to_a_detection_of_nothing(tmp_path: Path) -> None:
    assert lost(tmp_path, FIRST, SECOND, (1, 3, [500.0, 0, 50, 50], 0.95)) == {"background": 25}


def test_lost_ap_to_a_missed_box_is_won_where_it_need_not_be_found(tmp_path: Path) -> None:
    assert lost(tmp_path, FIRST) == {"missed": 50}


def test_lost_ap_of_no_detections_at_all_is_all_missed(tmp_path: Path) -> None:
    assert lost(tmp_path) == {"missed": 100}


def test_lost_ap_leaves_out_detections_on_a_crowd_of_their_category(tmp_path: Path) -> None:
    inside = [450.0, 0, 60, 60]
    assert lost(tmp_path, FIRST, SECOND, (1, 3, inside, 0.95), boxes=[*BOXES, CROWD]) == {}


def test_lost_ap_counts_detections_on_a_crowd_of_another_category(tmp_path: Path) -> None:
    inside = [450.0, 0, 60, 60]
    assert lost(tmp_path, FIRST, SECOND, (1, 7, inside, 0.95), boxes=[*BOXES, CROWD]) == {"background": 25}


def test_lost_ap_starts_from_coco_s_ap50_also_with_crowds(tmp_path: Path) -> None:
    index, found = random_scene(tmp_path, IMAGES, 0)
    assert index.crowd.any()
    every = asdict(lost_ap(index, found))
    assert all(0 <= value < 100 - coco_metrics(index, found)["AP50"] for value in every.values())


@pytest.mark.parametrize(
    ("seed", "ap50", "expected"),
    [  # tidecv 1.0.1, boxes at its default thresholds: AP, then Cls, Loc, Both, Dupe, Bkg, Miss
        (
            0,
            40.515646689500,
            [28.801231663803, 2.104250250372, 0.092138649349, 3.670757583111, 0.123983939141, 16.107530636908],
        ),
        (
            1,
            40.097785463384,
            [15.943075764717, 3.675611012040, 1.666666666667, 6.361870470569, 0.173560268573, 7.890895828615],
        ),
        (
            2,
            39.197331056123,
            [32.350513681293, 1.360752760653, 0.961554279714, 5.245742660690, 0.128148278273, 13.491119010528],
        ),
        (
            3,
            32.776122680565,
            [4.997270961790, 4.029534093608, 1.305858896055, 3.981309319587, 0.180256582321, 10.675451327358],
        ),
    ],
)
def test_lost_ap_equals_the_authors_tool(seed: int, ap50: float, expected: list[float], tmp_path: Path) -> None:
    index, found = random_scene(tmp_path, IMAGES, seed, crowds=0)
    assert coco_metrics(index, found)["AP50"] == pytest.approx(ap50)
    assert list(asdict(lost_ap(index, found)).values()) == pytest.approx(expected)
