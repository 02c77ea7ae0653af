"""Anchor assignment: thresholds, low-quality matches, ties, and torchvision's matcher as a second opinion."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from detector.model.anchors import AnchorSettings, grid_anchors
from detector.model.assign import assign_anchors, assign_batch, assign_padded, padded_targets, pairwise_iou
from detector.model.cpu_loops import CHUNK
from detector.runs.job import BoxConvention, MatchSettings
from drloss.labels import BACKGROUND, IGNORED

STRICT = MatchSettings(foreground_iou=0.5, background_iou=0.4, allow_low_quality=False)
LENIENT = MatchSettings(foreground_iou=0.5, background_iou=0.4, allow_low_quality=True)


def boxes_of(*rows: tuple[float, float, float, float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def random_boxes(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    # Whole pixels, so that equal overlaps (ties) happen.
    corner = torch.randint(0, 40, (count, 2), generator=generator)
    return torch.cat((corner, corner + torch.randint(4, 24, (count, 2), generator=generator)), dim=1).float()


def test_assign_compares_iou_with_both_thresholds_inclusively() -> None:
    # IoU with the box: 1, 0.5, 0.4, 0.3, 0.
    anchors = boxes_of((0, 0, 10, 10), (0, 0, 10, 5), (0, 0, 10, 4), (0, 0, 10, 3), (20, 20, 30, 30))

    labels, matched = assign_anchors(anchors, boxes_of((0, 0, 10, 10)), torch.tensor([7]), STRICT, "modern")

    assert labels.tolist() == [7, 7, IGNORED, BACKGROUND, BACKGROUND]
    assert labels.dtype == matched.dtype == torch.int64


def test_assign_ignores_no_anchor_where_both_thresholds_are_equal() -> None:
    settings = MatchSettings(foreground_iou=0.5, background_iou=0.5, allow_low_quality=False)

    labels, _ = assign_anchors(random_boxes(500, 0), random_boxes(5, 1), torch.arange(5), settings, "modern")

    assert IGNORED not in labels
    assert BACKGROUND in labels


def test_assign_takes_the_box_of_highest_overlap() -> None:
    # The anchor overlaps the boxes by 50 / 100 and 80 / 100.
    boxes = boxes_of((0, 0, 10, 5), (0, 0, 10, 8))

    labels, matched = assign_anchors(boxes_of((0, 0, 10, 10)), boxes, torch.tensor([3, 5]), STRICT, "modern")

    assert (labels.tolist(), matched.tolist()) == ([5], [1])


def test_assign_low_quality_claims_every_tied_best_anchor() -> None:
    # IoU 0.3, 0.3, 0.2: nothing reaches a threshold.
    anchors = boxes_of((0, 0, 10, 3), (0, 7, 10, 10), (0, 0, 10, 2))
    box, label = boxes_of((0, 0, 10, 10)), torch.tensor([2])

    assert assign_anchors(anchors, box, label, STRICT, "modern")[0].tolist() == [BACKGROUND] * 3
    assert assign_anchors(anchors, box, label, LENIENT, "modern")[0].tolist() == [2, 2, BACKGROUND]


def test_assign_low_quality_lifts_an_ignored_anchor() -> None:
    anchors = boxes_of((0, 0, 10, 4.5))

    assert assign_anchors(anchors, boxes_of((0, 0, 10, 10)), torch.tensor([2]), LENIENT, "modern")[0].tolist() == [2]


def test_assign_claimed_anchor_keeps_the_box_it_overlaps_most() -> None:
    # The only anchor is the best of both boxes: IoU 100 / 120 and 120 / 400.
    boxes = boxes_of((0, 0, 10, 10), (0, 0, 10, 40))

    labels, matched = assign_anchors(boxes_of((0, 0, 10, 12)), boxes, torch.tensor([4, 6]), LENIENT, "modern")

    assert (labels.tolist(), matched.tolist()) == ([4], [0])


def test_assign_box_without_any_overlap_claims_nothing() -> None:
    anchors = boxes_of((0, 0, 10, 10), (0, 0, 5, 5))

    labels, _ = assign_anchors(anchors, boxes_of((50, 50, 60, 60)), torch.tensor([0]), LENIENT, "modern")

    assert labels.tolist() == [BACKGROUND, BACKGROUND]


def test_assign_without_boxes_makes_everything_background() -> None:
    labels, matched = assign_anchors(
        random_boxes(3, 0), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), LENIENT, "modern"
    )

    assert labels.tolist() == [BACKGROUND] * 3
    assert matched.dtype == torch.int64
    assert matched.shape == (3,)


@pytest.mark.parametrize("settings", [STRICT, LENIENT], ids=["strict", "lenient"])
@pytest.mark.parametrize("seed", range(5))
def test_assign_equals_torchvision_matcher(settings: MatchSettings, seed: int) -> None:
    anchors, boxes, classes = random_boxes(400, seed), random_boxes(6, 100 + seed), torch.arange(6) + 10
    matcher = Matcher(settings.foreground_iou, settings.background_iou, settings.allow_low_quality)
    theirs = matcher(box_iou(boxes, anchors))

    labels, matched = assign_anchors(anchors, boxes, classes, settings, "modern")

    assert torch.equal(torch.where(labels >= 0, matched, labels), theirs)  # its codes are ours: -1 and -2
    assert torch.equal(labels[labels >= 0], theirs[theirs >= 0] + 10)


@pytest.mark.parametrize("convention", ["modern", "legacy"])
@pytest.mark.parametrize("settings", [STRICT, LENIENT], ids=["strict", "lenient"])
@pytest.mark.parametrize("whole", [True, False], ids=["ties", "no-ties"])
def test_assign_batch_equals_the_matrices_to_the_last_bit(
    settings: MatchSettings, convention: BoxConvention, whole: bool
) -> None:
    anchor_settings = AnchorSettings(4.0, 3, (0.5, 1.0, 2.0), convention)
    levels = grid_anchors(((13, 20), (7, 10), (4, 5)), (8, 16, 32), anchor_settings, image_shape=(104, 160))
    anchors = torch.cat(levels)
    random = torch.Generator().manual_seed(0)
    corners = 90 * torch.rand(4, 8, 2, generator=random)
    boxes = torch.cat((corners, corners + 1 + 60 * torch.rand(4, 8, 2, generator=random) ** 2), dim=-1)
    boxes = boxes.round() if whole else boxes
    labels = torch.arange(32).view(4, 8)
    labels[1, 5:], labels[2] = BACKGROUND, BACKGROUND

    found = assign_batch(anchors, boxes, labels, settings, convention)

    assert len(anchors) > 3 * CHUNK
    assert (found[0] >= 0).sum() > 20
    for ours, expected in zip(found, assign_padded(anchors, boxes, labels, settings, convention), strict=True):
        assert torch.equal(ours, expected)


def test_assign_batch_gives_each_image_what_it_gets_alone() -> None:
    anchors, boxes = random_boxes(300, 0), random_boxes(4, 1)
    targets = [
        {"boxes": boxes, "labels": torch.arange(4)},
        {"boxes": boxes[:0], "labels": torch.arange(0)},
        {"boxes": boxes[1:3], "labels": torch.tensor([7, 8])},
    ]

    labels, matched = assign_batch(anchors, *padded_targets(targets, like=anchors), LENIENT, "modern")

    for i, target in enumerate(targets):
        alone = assign_anchors(anchors, target["boxes"], target["labels"], LENIENT, "modern")
        assert torch.equal(labels[i], alone[0])
        assert torch.equal(matched[i], alone[1])


def test_padded_targets_have_a_box_without_class_where_others_have_more() -> None:
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    one = {"boxes": boxes_of((1, 2, 3, 4)).double(), "labels": torch.tensor([5])}

    boxes, labels = padded_targets([none, one], like=torch.zeros(1))
    assert boxes.tolist() == [[[0, 0, 1, 1]], [[1, 2, 3, 4]]]
    assert boxes.dtype == torch.float32
    assert labels.tolist() == [[BACKGROUND], [5]]
    assert padded_targets([none], like=torch.zeros(1))[0].shape == (1, 1, 4)
    wider, wider_labels = padded_targets([none, one], like=torch.zeros(1), capacity=3)
    assert wider.tolist() == [[[0, 0, 1, 1]] * 3, [[1, 2, 3, 4], [0, 0, 1, 1], [0, 0, 1, 1]]]
    assert wider_labels.tolist() == [[BACKGROUND] * 3, [5, BACKGROUND, BACKGROUND]]


def test_pairwise_iou_gives_hand_computed_ratios() -> None:
    # Intersections 25, 0, 100 of areas 100 each; 25 / 175.
    anchors = boxes_of((5, 5, 15, 15), (10, 0, 20, 10), (0, 0, 10, 10))

    assert pairwise_iou(boxes_of((0, 0, 10, 10)), anchors, "modern")[0].tolist() == [
        torch.tensor(25 / 175).item(),
        0,
        1,
    ]


def test_pairwise_iou_equals_torchvision_to_the_last_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = 100 * torch.rand(300, 2, generator=generator)
    boxes = torch.cat((corners, corners + 1 + 50 * torch.rand(300, 2, generator=generator)), dim=1)

    assert torch.equal(pairwise_iou(boxes[:20], boxes[20:], "modern"), box_iou(boxes[:20], boxes[20:]))
