"""From outputs to detections, with boxes that are their anchors (zero deltas) and scores chosen by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import nms

from detector.model.postprocess import Candidates, best_entries, image_candidates, merge_candidates
from detector.runs.job import TestSettings

TEST: dict[str, Any] = {
    "short_sides": (100,),
    "max_size": 100,
    "flip": False,
    "score_threshold": 0.2,
    "candidates_per_level": 10,
    "nms_iou": 0.5,
    "detections_per_image": 10,
}


def candidates_of(
    scores: list[list[list[float]]], anchors: list[list[list[float]]], deltas: list[Tensor] | None = None, **test: Any
) -> Candidates:
    """Scores and anchors by level, row by row."""
    return image_candidates(
        [torch.tensor(level).logit() for level in scores],
        deltas or [torch.zeros(len(level), 4) for level in anchors],
        [torch.tensor(level) for level in anchors],
        image_shape=(50, 100),
        test=TestSettings(**TEST | test),
        box_weights=(10.0, 10.0, 5.0, 5.0),
        convention="modern",
    )


def candidates(*rows: tuple[list[float], float, int]) -> Candidates:
    boxes, scores, labels = zip(*rows, strict=True)
    return Candidates(torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels))


A, B, C = [0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 40.0], [60.0, 10.0, 90.0, 40.0]


def test_candidates_are_entries_above_the_threshold_in_falling_order() -> None:
    found = candidates_of([[[0.1, 0.6], [0.7, 0.19], [0.3, 0.05]]], [[A, B, C]])

    assert found.labels.tolist() == [0, 1, 0]
    assert found.boxes.tolist() == [B, A, C]
    torch.testing.assert_close(found.scores, torch.tensor([0.7, 0.6, 0.3]))


def test_candidates_of_one_anchor_may_have_several_classes() -> None:
    found = candidates_of([[[0.6, 0.5]]], [[A]])

    assert found.boxes.tolist() == [A, A]
    assert found.labels.tolist() == [0, 1]


def test_candidates_are_limited_for_each_level_on_its_own() -> None:
    # The second level's scores are lower than those that the first one loses.
    found = candidates_of([[[0.9], [0.8], [0.7]], [[0.3], [0.4]]], [[A, B, C], [A, B]], candidates_per_level=1)

    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.4]))
    assert found.boxes.tolist() == [A, B]


def test_candidates_are_decoded_and_clipped_to_the_image_without_padding() -> None:
    # Half a width to the right and half a height down: (75, 25) .. (105, 55), in an image of 100 x 50.
    found = candidates_of([[[0.9]]], [[C]], [torch.tensor([[5.0, 5.0, 0.0, 0.0]])])

    assert found.boxes.tolist() == [[75.0, 25.0, 100.0, 50.0]]


def test_candidates_without_a_finite_score_or_box_are_dropped() -> None:
    broken = torch.zeros(3, 4)
    broken[1, 0], broken[2, 3] = float("inf"), float("nan")
    found = candidates_of([[[0.5], [0.9], [0.9]], [[float("nan")]]], [[A, B, C], [A]], [broken, torch.zeros(1, 4)])

    assert found.boxes.tolist() == [A]


def test_candidates_may_be_none() -> None:
    found = candidates_of([[[0.1], [0.1]]], [[A, B]])

    assert found.boxes.shape == (0, 4)
    assert found.labels.dtype == torch.int64
    merged = merge_candidates([found], TestSettings(**TEST), "modern")
    assert [len(merged[key]) for key in ("boxes", "scores", "labels")] == [0, 0, 0]


def test_merge_suppresses_within_a_class_only() -> None:
    near = [0.0, 0.0, 10.0, 9.0]  # IoU 0.9 with A
    found = candidates((A, 0.5, 0), (near, 0.9, 0), (A, 0.4, 1))

    merged = merge_candidates([found], TestSettings(**TEST), "modern")

    assert merged["boxes"].tolist() == [near, A]
    assert merged["labels"].tolist() == [0, 1]


def test_merge_keeps_overlap_equal_to_the_threshold() -> None:
    half = [0.0, 0.0, 10.0, 5.0]  # IoU 0.5 with A

    merged = merge_candidates([candidates((A, 0.9, 0), (half, 0.8, 0))], TestSettings(**TEST), "modern")

    assert len(merged["boxes"]) == 2


def test_merge_of_scales_suppresses_across_them_and_keeps_the_best() -> None:
    settings = TestSettings(**TEST | {"detections_per_image": 2})
    small, large = candidates((A, 0.6, 0), (C, 0.3, 0)), candidates((A, 0.8, 0), (B, 0.7, 0))

    merged = merge_candidates([small, large], settings, "modern")

    assert merged["boxes"].tolist() == [A, B]
    torch.testing.assert_close(merged["scores"], torch.tensor([0.8, 0.7]))


def test_merge_does_not_round_boxes_of_high_classes() -> None:
    # Squares of 0.98 and 0.5 pixels, one in the other: IoU 0.26. NMS moves class 4,000 by 4,000 x 1,334 pixels, where
    # float32 has half pixels only: both boxes would become one.
    box, other = [1300.26, 1300.26, 1301.24, 1301.24], [1300.7, 1300.7, 1301.2, 1301.2]
    found = candidates((box, 0.9, 4000), (other, 0.8, 4000), ([0.0, 0.0, 1333.0, 1333.0], 0.7, 0))

    merged = merge_candidates([found], TestSettings(**TEST), "modern")

    assert merged["labels"].tolist() == [4000, 4000, 0]


@pytest.mark.parametrize("num_entries", [0, 1, 63, 64, 10_000])
@pytest.mark.parametrize("least", [-2.0, 1.5])
def test_best_entries_are_those_of_a_whole_sort(num_entries: int, least: float) -> None:
    # Quarters, so that many are equal; of equals the first is wanted, in and around the list's end.
    logits = (4 * torch.randn(num_entries, generator=torch.Generator().manual_seed(0))).round() / 4
    logits[::7] = float("nan")

    values, places = best_entries(logits, 30, least)

    expected = [int(i) for i in logits.nan_to_num(-9).argsort(descending=True, stable=True) if logits[i] > least]
    assert places.tolist() == expected[:30]
    assert torch.equal(values, logits[places])


def test_best_entries_that_all_are_equal_are_the_first() -> None:
    assert best_entries(torch.zeros(5000), 8, -1.0)[1].tolist() == list(range(8))


@pytest.mark.parametrize("iou", [0.3, 0.5])
def test_merge_equals_torchvisions_nms_of_each_class(iou: float) -> None:
    random = torch.Generator().manual_seed(0)
    corners = 60 * torch.rand(600, 2, generator=random)
    boxes = torch.cat((corners, corners + 5 + 30 * torch.rand(600, 2, generator=random)), dim=1)
    scores, labels = torch.rand(600, generator=random), torch.randint(0, 4, (600,), generator=random)

    settings = TestSettings(**TEST | {"nms_iou": iou, "detections_per_image": 1000})
    merged = merge_candidates([Candidates(boxes, scores, labels)], settings, "modern")

    of_class = [(labels == k).nonzero()[:, 0] for k in range(4)]
    kept = torch.cat([of[nms(boxes[of].double(), scores[of].double(), iou)] for of in of_class])
    kept = kept[scores[kept].argsort(descending=True)]
    assert 100 < len(kept) < 500
    assert torch.equal(merged["boxes"], boxes[kept])
    assert torch.equal(merged["labels"], labels[kept])
