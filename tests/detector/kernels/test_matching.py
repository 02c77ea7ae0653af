"""Matching by kernels: the labels and boxes of the CPU's loops and of the matrices, to the last bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detector.geometry.boxes import PIXEL
from detector.kernels.matching import match
from detector.model.anchors import AnchorSettings, grid_anchors
from detector.model.assign import assign_batch, assign_padded
from detector.runs.job import BoxConvention, MatchSettings
from drloss.labels import BACKGROUND, IGNORED
from tests.triton_kernels import DEVICES

STRICT = MatchSettings(foreground_iou=0.5, background_iou=0.4, allow_low_quality=False)
LENIENT = MatchSettings(foreground_iou=0.5, background_iou=0.4, allow_low_quality=True)


def matched_by_kernels(
    anchors: Tensor, boxes: Tensor, labels: Tensor, settings: MatchSettings, convention: BoxConvention, device: str
) -> tuple[Tensor, Tensor]:
    assigned, matched = match(
        *(anchors.to(device), boxes.to(device), labels.to(device)),
        foreground_iou=settings.foreground_iou,
        background_iou=settings.background_iou,
        allow_low_quality=settings.allow_low_quality,
        one=PIXEL[convention],
    )
    return assigned.cpu(), matched.cpu()


def random_case(convention: BoxConvention, whole: bool, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Anchors, boxes [4, 24, 4] and labels: images with padding at the end, with nothing but it, and in between."""
    settings = AnchorSettings(4.0, 3, (0.5, 1.0, 2.0), convention)
    anchors = torch.cat(grid_anchors(((13, 11), (7, 6), (4, 3)), (8, 16, 32), settings, image_shape=(104, 88)))
    random = torch.Generator().manual_seed(seed)
    corners = 90 * torch.rand(4, 24, 2, generator=random)
    boxes = torch.cat((corners, corners + 1 + 60 * torch.rand(4, 24, 2, generator=random) ** 2), dim=-1)
    labels = torch.arange(96).view(4, 24) % 80
    labels[1, 5:], labels[2], labels[3, ::2] = BACKGROUND, BACKGROUND, BACKGROUND
    return anchors, boxes.round() if whole else boxes, labels


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("convention", ["modern", "legacy"])
@pytest.mark.parametrize("settings", [STRICT, LENIENT], ids=["strict", "lenient"])
@pytest.mark.parametrize("whole", [True, False], ids=["ties", "no-ties"])
def test_match_equals_the_loops_and_the_matrices_to_the_last_bit(
    settings: MatchSettings, convention: BoxConvention, whole: bool, device: str
) -> None:
    anchors, boxes, labels = random_case(convention, whole)

    found = matched_by_kernels(anchors, boxes, labels, settings, convention, device)

    assert (found[0] >= 0).sum() > 20
    for reference in (assign_batch, assign_padded):
        for ours, theirs in zip(found, reference(anchors, boxes, labels, settings, convention), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("device", DEVICES)
def test_match_does_not_depend_on_how_much_padding_there_is(device: str) -> None:
    anchors, boxes, labels = random_case("legacy", True)
    padded = torch.cat((boxes, torch.tensor([0.0, 0, 1, 1]).expand(4, 104, 4)), dim=1)
    padded_labels = torch.cat((labels, labels.new_full((4, 104), BACKGROUND)), dim=1)

    found = matched_by_kernels(anchors, padded, padded_labels, LENIENT, "legacy", device)

    for ours, theirs in zip(found, assign_padded(anchors, boxes, labels, LENIENT, "legacy"), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("device", DEVICES)
def test_match_claims_ties_and_nothing_for_a_box_apart(device: str) -> None:
    # IoU 0.3, 0.3, 0.2 with the first box, none with the second; 0.4 with the first is above the rest.
    anchors = torch.tensor([[0.0, 0, 10, 3], [0, 7, 10, 10], [0, 0, 10, 2], [200, 200, 201, 201]])
    boxes = torch.tensor([[[0.0, 0, 10, 10], [50, 50, 60, 60]]])
    labels = torch.tensor([[2, 3]])

    lenient = matched_by_kernels(anchors, boxes, labels, LENIENT, "modern", device)
    strict = matched_by_kernels(anchors, boxes, labels, STRICT, "modern", device)

    assert lenient[0].tolist() == [[2, 2, BACKGROUND, BACKGROUND]]
    assert strict[0].tolist() == [[BACKGROUND] * 4]
    assert lenient[1].tolist() == strict[1].tolist() == [[0, 0, 0, 0]]
    anchors[3] = torch.tensor([0.0, 0, 10, 4.5])
    assert matched_by_kernels(anchors, boxes, labels, STRICT, "modern", device)[0].tolist() == [
        [BACKGROUND, BACKGROUND, BACKGROUND, IGNORED]
    ]
