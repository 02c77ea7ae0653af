"""The box regression loss by kernels, against the loss over selected positives in plain torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detector.geometry.boxes import PIXEL
from detector.kernels import box_loss as kernels
from detector.kernels.box_loss import Rule, box_loss
from detector.model.regression_loss import box_regression_loss
from detector.runs.job import BoxConvention, RegressionSettings
from tests.triton_kernels import DEVICES


def case(device: str, num_images: int = 5, num_anchors: int = 150) -> list[Tensor]:
    """Deltas, anchors, boxes, labels and matched boxes; some of all kinds of labels, an image without positives."""
    random = torch.Generator().manual_seed(0)
    corner, box_corner = (50 * torch.rand(size, generator=random) for size in ((num_anchors, 2), (num_images, 7, 2)))
    anchors = torch.cat((corner, corner + 4 + 30 * torch.rand(num_anchors, 2, generator=random)), dim=-1)
    boxes = torch.cat((box_corner, box_corner + 4 + 30 * torch.rand(num_images, 7, 2, generator=random)), dim=-1)
    labels = torch.randint(-2, 2, (num_images, num_anchors), generator=random)
    matched = torch.randint(0, 7, (num_images, num_anchors), generator=random)
    labels[1] = -1
    deltas = 3 * torch.randn(num_images, num_anchors, 4, generator=random)
    return [tensor.to(device) for tensor in (deltas, anchors, boxes, labels, matched)]


def check(inputs: list[Tensor], settings: RegressionSettings, convention: BoxConvention, per_group: int) -> None:
    deltas, anchors, boxes, labels, matched = inputs
    rule = Rule(settings.box_weights, settings.beta, settings.normalizer, PIXEL[convention], per_group)
    ours, theirs = deltas.clone().requires_grad_(), deltas.cpu().float().requires_grad_()

    found = box_loss(ours, anchors, boxes, labels, matched, rule)
    assigned = (labels.cpu(), matched.cpu())
    wanted = box_regression_loss(
        theirs, anchors.cpu(), boxes.cpu(), assigned, settings, convention=convention, images_per_group=per_group
    )

    torch.testing.assert_close(found.cpu(), wanted, rtol=2e-6, atol=1e-6)
    (grad,) = torch.autograd.grad(100 * found, ours)
    (wanted_grad,) = torch.autograd.grad(100 * wanted, theirs)
    assert (grad.shape, grad.dtype) == (deltas.shape, deltas.dtype)
    tolerance = {torch.float32: 1e-5, torch.float16: 2**-10, torch.bfloat16: 2**-7}[deltas.dtype]
    torch.testing.assert_close(grad.cpu().float(), wanted_grad, rtol=tolerance, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("convention", ["modern", "legacy"])
@pytest.mark.parametrize("beta", [0.0, 0.11, 3.0])
@pytest.mark.parametrize("per_group", [1, 2, 5, 8])
def test_box_loss_and_gradient_equal_those_of_selected_anchors(
    device: str, convention: BoxConvention, beta: float, per_group: int
) -> None:
    settings = RegressionSettings(box_weights=(10.0, 9.0, 5.0, 4.0), beta=beta, normalizer=4.0)
    check(case(device), settings, convention, per_group)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_box_loss_takes_half_precision(device: str, dtype: torch.dtype) -> None:
    deltas, *others = case(device)
    settings = RegressionSettings(box_weights=(1.0, 1.0, 1.0, 1.0), beta=0.11, normalizer=1.0)
    check([deltas.to(dtype), *others], settings, "modern", 2)


@pytest.mark.parametrize("device", DEVICES)
def test_box_loss_over_many_programs_and_without_positives(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_ANCHORS", 16)
    settings = RegressionSettings(box_weights=(1.0, 1.0, 1.0, 1.0), beta=0.11, normalizer=0.001)
    monkeypatch.setattr(kernels, "_PARTS", 4)
    inputs = case(device, num_images=3, num_anchors=90)
    check(inputs, settings, "modern", 2)
    inputs[3].fill_(-1)
    check(inputs, settings, "modern", 2)


@pytest.mark.parametrize("device", DEVICES)
def test_box_loss_shows_a_nan_of_a_positive_and_of_no_other_anchor(device: str) -> None:
    deltas, anchors, boxes, labels, matched = case(device)
    rule = Rule((1.0, 1.0, 1.0, 1.0), 0.11, 1.0, 0, 2)
    deltas[labels < 0] = torch.nan
    assert box_loss(deltas, anchors, boxes, labels, matched, rule).isfinite()

    deltas[0, int(labels[0].argmax()), 3] = torch.nan
    deltas.requires_grad_()
    loss = box_loss(deltas, anchors, boxes, labels, matched, rule)
    (grad,) = torch.autograd.grad(loss, deltas)
    assert loss.isnan()
    assert grad.isnan().sum() == 1
