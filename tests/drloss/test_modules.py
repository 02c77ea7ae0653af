"""One suite that every loss passes: values as arithmetic, extremes, empty sets, masks, forms of input, precision."""

from __future__ import annotations

from contextlib import nullcontext
from math import exp, log, log1p

import pytest
import torch
from torch import Tensor, nn

from drloss import CrossEntropyLoss, DRLoss, FocalLoss
from drloss.labels import BACKGROUND, IGNORED
from tests.devices import host_never_waits

RANKING = {
    "dr": DRLoss(lambda_neg=0.1),
    "dr-hinge": DRLoss(lambda_neg=0.1, surrogate="hinge"),
    "dr-quadratic": DRLoss(lambda_neg=0.1, surrogate="quadratic"),
    "dr-hard_negative": DRLoss(lambda_neg=0.1, prior="hard_negative", ratio=1.0),
    "neg_only": DRLoss(lambda_neg=0.1, pairing="neg_only"),
    "all": DRLoss(pairing="all"),
    "all-hinge": DRLoss(pairing="all", surrogate="hinge"),
    "all-quadratic": DRLoss(pairing="all", surrogate="quadratic"),
    "worst_case": DRLoss(pairing="worst_case"),
}
POINTWISE = {
    "focal": FocalLoss(),
    "focal-gamma0.5": FocalLoss(gamma=0.5),
    "cross_entropy": CrossEntropyLoss(),
    "cross_entropy-mined": CrossEntropyLoss(mining="hard_negative", ratio=1.0),
}
LOSSES: dict[str, nn.Module] = {**RANKING, **POINTWISE}


def surrogate_of(name: str, z: float) -> float:
    """tau times the surrogate that the loss called ``name`` uses, tau = 4."""
    if name.endswith("hinge"):
        return 4 * max(z, 0.0)
    if name.endswith("quadratic"):  # rho = 0.5
        return 4 * (z if z >= 0.5 else (z + 0.5) ** 2 / 2 if z > -0.5 else 0.0)
    return 4 * log1p(exp(6 * z)) / 6


def logit(probabilities: list[list[float]]) -> Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).logit()


def random_case(
    num_images: int = 2, num_anchors: int = 12, num_classes: int = 3, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Float64 logits and labels with all kinds of anchors in every image."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_images, num_anchors, num_classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(IGNORED, num_classes, (num_images, num_anchors), generator=generator)
    labels[:, :3] = torch.tensor([0, BACKGROUND, IGNORED])
    return logits, labels


def gradient(loss: nn.Module, logits: Tensor, labels: Tensor) -> Tensor:
    logits = logits.detach().clone().requires_grad_()
    torch.autograd.backward(loss(logits, labels))
    assert logits.grad is not None
    return logits.grad


@pytest.fixture(params=LOSSES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def loss(name: str) -> nn.Module:
    return LOSSES[name]


# Two matched anchors, one background, one ignored: positives 0.6 and 0.5; negatives 0.2, 0.4, 0.3 and 0.1.
SCORES = [[0.2, 0.6], [0.5, 0.4], [0.3, 0.1], [0.9, 0.8]]
LABELS = [1, 0, BACKGROUND, IGNORED]
P_NEG = (0.2 * exp(2) + 0.4 * exp(4) + 0.3 * exp(3) + 0.1 * exp(1)) / (exp(2) + exp(4) + exp(3) + exp(1))
P_NEG_MINED = (0.4 * exp(4) + 0.3 * exp(3)) / (exp(4) + exp(3))
P_POS = (0.6 * exp(-0.6) + 0.5 * exp(-0.5)) / (exp(-0.6) + exp(-0.5))
PAIRS = [0.1, 0.3, 0.2, 0.0, 0.2, 0.4, 0.3, 0.1]  # p_neg - p_pos + 0.5
VALUES = {
    "dr": 4 * log1p(exp(6 * (P_NEG - P_POS + 0.5))) / 6,
    "dr-hinge": 4 * (P_NEG - P_POS + 0.5),
    "dr-quadratic": 4 * (P_NEG - P_POS + 1.0) ** 2 / 2,
    "dr-hard_negative": 4 * log1p(exp(6 * (P_NEG_MINED - P_POS + 0.5))) / 6,
    "neg_only": 4 * (log1p(exp(6 * (P_NEG - 0.1))) + log1p(exp(6 * P_NEG))) / 6 / 2,
    "all": 4 * sum(log1p(exp(6 * z)) / 6 for z in PAIRS) / 8,
    "all-hinge": 4 * 1.6 / 8,
    "all-quadratic": 4 * sum((z + 0.5) ** 2 / 2 for z in PAIRS) / 8,
    "worst_case": 4 * log1p(exp(6 * (0.4 - 0.5 + 0.5))) / 6,
    # Over two positive anchors + one image.
    "focal": -(
        0.25 * (0.4**2 * log(0.6) + 0.5**2 * log(0.5))
        + 0.75 * (0.2**2 * log(0.8) + 0.4**2 * log(0.6) + 0.3**2 * log(0.7) + 0.1**2 * log(0.9))
    )
    / 3,
    "focal-gamma0.5": -(
        0.25 * (0.4**0.5 * log(0.6) + 0.5**0.5 * log(0.5))
        + 0.75 * (0.2**0.5 * log(0.8) + 0.4**0.5 * log(0.6) + 0.3**0.5 * log(0.7) + 0.1**0.5 * log(0.9))
    )
    / 3,
    "cross_entropy": -(log(0.6) + log(0.5) + log(0.8) + log(0.6) + log(0.7) + log(0.9)) / 3,
    "cross_entropy-mined": -(log(0.6) + log(0.5) + log(0.6) + log(0.7)) / 3,
}


def test_loss_equals_arithmetic_on_small_case(name: str, loss: nn.Module) -> None:
    value = loss(logit(SCORES), torch.tensor(LABELS))
    assert value.shape == ()
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(VALUES[name], rel=1e-12)
    assert loss(logit(SCORES).float(), torch.tensor(LABELS)).item() == pytest.approx(VALUES[name], rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_loss_is_right_with_finite_gradient_at_logits_of_100(
    name: str, loss: nn.Module, sign: float, dtype: torch.dtype
) -> None:
    logits = sign * torch.tensor([[[100.0], [-100.0]]], dtype=dtype)
    labels = torch.tensor([[0, BACKGROUND]])
    if name in RANKING:  # p_neg - p_pos = -1 when right, +1 when wrong
        expected = surrogate_of(name, 0.5 - sign)
    else:  # one positive and one negative, each with -log(p_t) = 0 or 100, over 1 positive + 1 image
        alphas = (0.25, 0.75) if name.startswith("focal") else (1.0, 1.0)
        expected = 0.0 if sign > 0 else sum(alphas) * 100 / 2
    assert loss(logits, labels).item() == pytest.approx(expected, rel=1e-6, abs=1e-12)
    grad = gradient(loss, logits, labels)
    assert grad.isfinite().all()
    if name in RANKING:
        assert grad.abs().max() < 1e-30
    elif sign < 0:
        assert grad[0, 0, 0].item() == pytest.approx(-alphas[0] / 2)
        assert grad[0, 1, 0].item() == pytest.approx(alphas[1] / 2)


def test_loss_is_its_least_with_zero_gradient_when_all_anchors_are_ignored(name: str, loss: nn.Module) -> None:
    logits, _ = random_case(num_images=1)
    labels = torch.full((1, 12), IGNORED)
    # A perfect ranking: P- = 0 and P+ = 1.
    expected = surrogate_of(name, -0.5) if name in RANKING else 0.0
    assert loss(logits, labels).item() == pytest.approx(expected, rel=1e-12)
    assert torch.equal(gradient(loss, logits, labels), torch.zeros_like(logits))


def test_loss_without_negatives_ranks_the_positive_against_zero(name: str, loss: nn.Module) -> None:
    logits, labels = logit([[0.6]]), torch.tensor([0])
    expected = surrogate_of(name, 0.0 - 0.6 + 0.5)
    if name in POINTWISE:
        weight = {"focal": 0.25 * 0.4**2, "focal-gamma0.5": 0.25 * 0.4**0.5}.get(name, 1.0)
        expected = -weight * log(0.6) / 2
    assert loss(logits, labels).item() == pytest.approx(expected, rel=1e-12, abs=1e-15)
    grad = gradient(loss, logits, labels)
    assert grad.isfinite().all()
    if not name.endswith("hinge"):  # the hinge of -0.1 is flat
        assert grad.item() < 0


def test_loss_without_positives_ranks_the_negative_below_one(name: str, loss: nn.Module) -> None:
    logits, labels = logit([[0.7]]), torch.tensor([BACKGROUND])
    expected = surrogate_of(name, 0.7 - 1.0 + 0.5)
    if name in POINTWISE:
        weight = {"focal": 0.75 * 0.7**2, "focal-gamma0.5": 0.75 * 0.7**0.5}.get(name, 1.0)
        expected = -weight * log(0.3) / 1
    assert loss(logits, labels).item() == pytest.approx(expected, rel=1e-12)
    assert gradient(loss, logits, labels).item() > 0


def test_ignored_anchors_equal_removed_anchors(loss: nn.Module) -> None:
    logits, labels = random_case(num_images=1)
    kept = labels[0] != IGNORED
    assert 0 < kept.sum() < 12
    removed = logits[:, kept], labels[:, kept]
    assert loss(logits, labels).item() == pytest.approx(loss(*removed).item(), rel=1e-13)
    torch.testing.assert_close(gradient(loss, logits, labels)[:, kept], gradient(loss, *removed), rtol=1e-12, atol=0)


@pytest.mark.parametrize("rubbish", [0.3, 100.0, float("inf"), float("-inf"), float("nan")])
def test_ignored_gradient_is_exactly_zero_whatever_the_logit(loss: nn.Module, rubbish: float) -> None:
    logits, labels = random_case()
    clean = loss(logits, labels)
    ignored = labels == IGNORED
    logits[ignored] = rubbish
    assert torch.equal(loss(logits, labels), clean)
    grad = gradient(loss, logits, labels)
    assert torch.equal(grad[ignored], torch.zeros_like(grad[ignored]))
    assert grad.isfinite().all()
    assert grad[~ignored].abs().max() > 0


def test_list_of_levels_equals_concatenation(loss: nn.Module) -> None:
    logits, labels = random_case()
    levels = [level.clone().requires_grad_() for level in torch.split(logits, [7, 4, 1], dim=1)]
    value = loss(levels, labels)
    assert torch.equal(value, loss(logits, labels))
    torch.autograd.backward(value)
    grads = torch.cat([level.grad for level in levels if level.grad is not None], dim=1)
    assert torch.equal(grads, gradient(loss, logits, labels))


def test_one_image_without_batch_dimension_equals_batch_of_one(loss: nn.Module) -> None:
    logits, labels = random_case(num_images=1)
    assert torch.equal(loss(logits[0], labels[0]), loss(logits, labels))
    assert torch.equal(gradient(loss, logits[0], labels[0]), gradient(loss, logits, labels)[0])


def test_batch_equals_images(name: str, loss: nn.Module) -> None:
    logits, labels = random_case(num_images=3)
    labels[1] = labels[1].clamp(max=BACKGROUND)  # an image without positives
    labels[2] = IGNORED
    values = torch.stack([loss(logits[i], labels[i]) for i in range(3)])
    if name in RANKING:
        expected = values.mean()
    else:  # undo each image's divisor, take the common one
        num_positives = (labels >= 0).sum(dim=1)
        expected = (values * (num_positives + 1)).sum() / (num_positives.sum() + 3)
    assert loss(logits, labels).item() == pytest.approx(expected.item(), rel=1e-13)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_under_autocast_are_computed_in_float32(loss: nn.Module, dtype: torch.dtype) -> None:
    logits, labels = random_case()
    half = logits.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(half, labels)
        grad = gradient(loss, half, labels)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(half.double(), labels).item(), rel=1e-6)
    assert grad.dtype == dtype
    torch.testing.assert_close(grad.double(), gradient(loss, half.double(), labels), rtol=1e-2, atol=1e-5)


def test_gradient_equals_finite_differences(loss: nn.Module) -> None:
    logits, labels = random_case(num_anchors=7)
    labels[1] = labels[1].clamp(max=BACKGROUND)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), logits.requires_grad_())


def test_loss_does_not_depend_on_the_order_of_anchors(loss: nn.Module) -> None:
    logits, labels = random_case()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    shuffled = logits[:, order], labels[:, order]
    assert loss(*shuffled).item() == pytest.approx(loss(logits, labels).item(), rel=1e-13)
    torch.testing.assert_close(gradient(loss, *shuffled), gradient(loss, logits, labels)[:, order], rtol=1e-12, atol=0)


def test_loss_does_not_change_its_inputs(loss: nn.Module) -> None:
    logits, labels = random_case()
    before = logits.clone(), labels.clone()
    gradient(loss, logits, labels)
    loss(logits, labels)
    assert torch.equal(logits, before[0])
    assert torch.equal(labels, before[1])


@pytest.mark.gpu
def test_loss_on_gpu_equals_cpu_and_makes_the_host_wait_for_all_pairs_only(name: str, loss: nn.Module) -> None:
    logits, labels = random_case(num_anchors=400)
    on_gpu = logits.float().cuda().requires_grad_(), labels.cuda()
    with nullcontext() if name.startswith("all") else host_never_waits():
        value = loss(*on_gpu)
        torch.autograd.backward(value)
    assert value.item() == pytest.approx(loss(logits, labels).item(), rel=1e-6)
    expected = gradient(loss, logits, labels)
    assert on_gpu[0].grad is not None
    torch.testing.assert_close(on_gpu[0].grad.cpu().double(), expected, rtol=0, atol=1e-5 * expected.abs().max().item())
