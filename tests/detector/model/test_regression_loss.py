"""The loss of the boxes, by hand."""

from __future__ import annotations

import pytest
import torch

from detector.model.regression_loss import box_regression_loss, masked_losses, selected_losses
from detector.runs.job import RegressionSettings


def test_regression_loss_is_smooth_l1_over_positives_by_hand() -> None:
    settings = RegressionSettings(box_weights=(1.0, 1.0, 1.0, 1.0), beta=0.5, normalizer=2.0)
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 20.0, 20.0], [5.0, 5.0, 6.0, 6.0]])
    boxes = anchors.flip(0).repeat(3, 1, 1)
    boxes[:, 2] += torch.tensor([10.0, 0.0, 10.0, 0.0])  # from the first anchor a dx of 1
    boxes[:, 1] += torch.tensor([4.0, 0.0, 4.0, 0.0])  # from the second a dx of 0.2
    boxes[:, 0] += 50.0  # far away, but of no positive
    labels = torch.tensor([[3, 0, -1], [-1, -1, -2], [-1, 4, -1]])
    matched = torch.tensor([[2, 1, 0]]).repeat(3, 1)
    deltas = torch.zeros(3, 3, 4, requires_grad=True)

    loss = box_regression_loss(
        deltas, anchors, boxes, (labels, matched), settings, convention="modern", images_per_group=2
    )
    loss.backward()

    # 1 -> 1 - 0.5 / 2 = 0.75; 0.2 -> 0.2^2 / (2 * 0.5) = 0.04. Images 0 and 1 have two positives, image 2 has one.
    assert loss.item() == pytest.approx(((0.75 + 0.04) / (2 * 2) + 0.04 / (2 * 1)) / 2)
    assert deltas.grad is not None
    assert (deltas.grad != 0).nonzero().tolist() == [[0, 0, 0], [0, 1, 0], [2, 1, 0]]


def test_regression_loss_divides_by_at_least_one() -> None:
    settings = RegressionSettings(box_weights=(1.0, 1.0, 1.0, 1.0), beta=0.5, normalizer=0.25)
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0]])

    loss = box_regression_loss(
        torch.zeros(1, 1, 4),
        anchors,
        anchors[None] + 10,
        (torch.tensor([[0]]), torch.tensor([[0]])),
        settings,
        convention="modern",
        images_per_group=1,
    )

    assert loss.item() == pytest.approx(2 * 0.75)


@pytest.mark.parametrize("beta", [0.0, 0.11])
def test_selected_losses_equal_masked_ones(beta: float) -> None:
    settings = RegressionSettings(box_weights=(10.0, 10.0, 5.0, 5.0), beta=beta, normalizer=1.0)
    random = torch.Generator().manual_seed(0)
    corners = 50 * torch.rand(2, 60, 2, generator=random)
    anchors, boxes = torch.cat((corners, corners + 1 + 20 * torch.rand(corners.shape, generator=random)), dim=-1)
    deltas = torch.randn(3, 60, 4, generator=random, dtype=torch.float64).requires_grad_()
    labels = torch.randint(-2, 2, (3, 60), generator=random)
    labels[1] = -1
    assigned = labels, torch.randint(0, 20, (3, 60), generator=random)

    found = [
        losses(deltas, anchors, boxes.view(3, 20, 4), assigned, settings, "legacy")
        for losses in (selected_losses, masked_losses)
    ]
    gradients = [torch.autograd.grad(losses.sum(), deltas)[0] for losses in found]

    assert found[0][1] == 0
    torch.testing.assert_close(*found)
    torch.testing.assert_close(*gradients)
