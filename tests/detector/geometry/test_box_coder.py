"""Box deltas against hand computation, the round trip, and torchvision's coder."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder

from detector.geometry.box_coder import MAX_LOG_RATIO, decode, encode
from detector.runs.job import BoxConvention

UNIT = (1.0, 1.0, 1.0, 1.0)
RECIPE = (10.0, 10.0, 5.0, 5.0)


def random_boxes(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = 200 * torch.rand(*shape, 2, generator=generator)
    return torch.cat((corner, corner + 2 + 100 * torch.rand(*shape, 2, generator=generator)), dim=-1)


def test_encode_gives_shift_over_size_and_log_ratio() -> None:
    anchor = torch.tensor([0.0, 0.0, 10.0, 20.0])  # centre (5, 10), 10 x 20
    box = torch.tensor([5.0, 5.0, 25.0, 15.0])  # centre (15, 10), 20 x 10

    torch.testing.assert_close(encode(box, anchor, UNIT, "modern"), torch.tensor([1.0, 0.0, math.log(2), -math.log(2)]))
    expected = torch.tensor([10.0, 0.0, 5 * math.log(2), -5 * math.log(2)])
    torch.testing.assert_close(encode(box, anchor, RECIPE, "modern"), expected)


def test_decode_of_zero_deltas_is_the_anchor() -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 20.0], [-8.0, -4.0, 8.0, 4.0]])

    assert torch.equal(decode(torch.zeros(2, 4), anchors, RECIPE, "modern"), anchors)


def test_decode_moves_and_scales_by_hand() -> None:
    # Half a width right, a quarter height up, twice as wide, as high: centre (10, 5), 20 x 20.
    deltas = torch.tensor([5.0, -2.5, 5 * math.log(2), 0.0])

    boxes = decode(deltas, torch.tensor([0.0, 0.0, 10.0, 20.0]), RECIPE, "modern")

    torch.testing.assert_close(boxes, torch.tensor([0.0, -5.0, 20.0, 15.0]))


@pytest.mark.parametrize("convention", ["legacy", "modern"])
@pytest.mark.parametrize("weights", [UNIT, RECIPE])
def test_decode_inverts_encode(weights: tuple[float, float, float, float], convention: BoxConvention) -> None:
    boxes, anchors = random_boxes(3, 50, seed=0), random_boxes(50, seed=1)

    deltas = encode(boxes, anchors, weights, convention)

    torch.testing.assert_close(decode(deltas, anchors, weights, convention), boxes, rtol=1e-5, atol=1e-3)


def test_decode_cuts_growth_at_1000_over_16_after_the_weights() -> None:
    anchor = torch.tensor([-8.0, -8.0, 8.0, 8.0])
    deltas = torch.tensor([[0.0, 0.0, 1e4, 5 * MAX_LOG_RATIO], [0.0, 0.0, 5.0 * math.log(60), -1e4]])

    boxes = decode(deltas, anchor, RECIPE, "modern")

    torch.testing.assert_close(boxes[0], torch.tensor([-500.0, -500.0, 500.0, 500.0]))
    torch.testing.assert_close(boxes[1], torch.tensor([-480.0, 0.0, 480.0, 0.0]))


@pytest.mark.parametrize("weights", [UNIT, RECIPE])
def test_coder_agrees_with_torchvision(weights: tuple[float, float, float, float]) -> None:
    boxes, anchors = random_boxes(40, seed=2), random_boxes(40, seed=3)
    theirs = BoxCoder(weights)
    deltas = torch.randn(40, 4, generator=torch.Generator().manual_seed(4)) * 6

    torch.testing.assert_close(encode(boxes, anchors, weights, "modern"), theirs.encode_single(boxes, anchors))
    torch.testing.assert_close(decode(deltas, anchors, weights, "modern"), theirs.decode_single(deltas, anchors))
