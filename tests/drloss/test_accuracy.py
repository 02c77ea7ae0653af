"""Values and gradients at the size of one COCO image, 15 million entries, against float64."""

from __future__ import annotations

from math import log
from typing import TypeAlias

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from drloss import CrossEntropyLoss, DRLoss, FocalLoss
from drloss.functional import expected_scores
from drloss.labels import BACKGROUND
from drloss.modules import Pairing
from drloss.surrogates import SurrogateName, make_surrogate

NUM_ANCHORS, NUM_CLASSES, NUM_POSITIVES = 190_323, 80, 4
LAMBDA_NEG = 0.1 / log(3.5)

pytestmark = pytest.mark.slow


Image: TypeAlias = tuple[Tensor, Tensor, Tensor]
Scores: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.fixture(scope="module")
def coco_image() -> Image:
    """Float32 logits [1, R, K], labels [1, R] and flat mask of the positive entries [R * K]."""
    logits = torch.randn(1, NUM_ANCHORS, NUM_CLASSES, generator=torch.Generator().manual_seed(0)) * 2 - 3
    labels = torch.full((1, NUM_ANCHORS), BACKGROUND)
    labels[0, :: NUM_ANCHORS // NUM_POSITIVES] = 11
    is_pos = torch.zeros(NUM_ANCHORS, NUM_CLASSES, dtype=torch.bool)
    is_pos[labels[0] >= 0, 11] = True
    return logits, labels, is_pos.flatten()


@pytest.fixture(scope="module")
def float64_scores(coco_image: Image) -> Scores:
    """p of the negatives and positives, and their weights q of Propositions 1 and 2, in float64."""
    logits, _, is_pos = coco_image
    p = logits.double().sigmoid().flatten()
    neg, pos = p[~is_pos], p[is_pos]
    return neg, pos, torch.softmax(neg / LAMBDA_NEG, 0), torch.softmax(-pos, 0)


@pytest.mark.parametrize("surrogate", ["logistic", "quadratic", "hinge"])
@pytest.mark.parametrize("pairing", ["dr", "neg_only", "all", "worst_case"])
def test_value_at_15_million_entries_equals_float64(
    coco_image: Image, float64_scores: Scores, pairing: Pairing, surrogate: SurrogateName
) -> None:
    neg, pos, q_neg, q_pos = float64_scores
    function = make_surrogate(surrogate)
    if pairing == "dr":
        expected = function(q_neg @ neg - q_pos @ pos + 0.5)
    elif pairing == "neg_only":
        expected = function(q_neg @ neg - pos + 0.5).mean()
    elif pairing == "all":
        expected = torch.stack([function(neg - p + 0.5).mean() for p in pos]).mean()
    else:
        expected = function(neg.max() - pos.min() + 0.5)
    logits, labels, _ = coco_image
    loss = DRLoss(pairing=pairing, surrogate=surrogate, tau=1.0)
    with torch.no_grad():
        assert loss(logits, labels).item() == pytest.approx(expected.item(), rel=1e-6)


def test_dr_gradient_at_15_million_entries_equals_closed_form_in_float64(
    coco_image: Image, float64_scores: Scores
) -> None:
    logits, labels, is_pos = coco_image
    neg, pos, q_neg, q_pos = float64_scores
    p_neg, p_pos = q_neg @ neg, q_pos @ pos
    slope = torch.sigmoid(6 * (p_neg - p_pos + 0.5))
    expected = torch.empty(len(is_pos), dtype=torch.float64)
    expected[~is_pos] = slope * q_neg * (1 + (neg - p_neg) / LAMBDA_NEG) * neg * (1 - neg)
    expected[is_pos] = -slope * q_pos * (1 - (pos - p_pos)) * pos * (1 - pos)
    x = logits.clone().requires_grad_()
    torch.autograd.backward(DRLoss(tau=1.0)(x, labels))
    assert x.grad is not None
    error = (x.grad.flatten() - expected).abs()
    # Negatives by themselves too: each is far smaller than a positive's.
    assert error.max() < 1e-5 * expected.abs().max()
    assert error[~is_pos].max() < 1e-5 * expected[~is_pos].abs().max()


def test_all_pairs_gradient_at_15_million_entries_equals_float64(coco_image: Image, float64_scores: Scores) -> None:
    logits, labels, is_pos = coco_image
    neg, pos, _, _ = float64_scores
    x = logits.clone().requires_grad_()
    torch.autograd.backward(DRLoss(pairing="all", surrogate="hinge", tau=1.0)(x, labels))
    expected = torch.empty(len(is_pos), dtype=torch.float64)
    # A negative costs where it is above p_pos - 0.5, as float32 scores decide: a pair at the kink may fall either way.
    active = torch.stack([neg > p - 0.5 for p in pos])
    expected[~is_pos] = active.double().mean(dim=0) / len(neg) * neg * (1 - neg)
    expected[is_pos] = -active.double().mean(dim=1) / len(pos) * pos * (1 - pos)
    assert x.grad is not None
    error = (x.grad.flatten() - expected).abs()
    assert error[is_pos].max() < 1e-5 * expected[is_pos].abs().max()
    wrong = error[~is_pos] > 1e-5 * expected[~is_pos].abs().max()
    assert wrong.sum() < 20


@pytest.mark.parametrize("loss", [FocalLoss(), FocalLoss(gamma=1.5), CrossEntropyLoss()], ids=repr)
def test_pointwise_value_and_gradient_at_15_million_entries_equal_float64(coco_image: Image, loss: nn.Module) -> None:
    logits, labels, is_pos = coco_image
    gamma, alpha = (loss.gamma, loss.alpha) if isinstance(loss, FocalLoss) else (0.0, 0.5)
    exact = logits.double().flatten().requires_grad_()
    wrong = torch.where(is_pos, -exact, exact)
    weight = torch.where(is_pos, alpha, 1 - alpha) * (1.0 if isinstance(loss, FocalLoss) else 2.0)
    expected = (weight * wrong.sigmoid() ** gamma * F.softplus(wrong, threshold=40.0)).sum() / (is_pos.sum() + 1)
    (expected_grad,) = torch.autograd.grad(expected, exact)
    x = logits.clone().requires_grad_()
    value = loss(x, labels)
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    (grad,) = torch.autograd.grad(value, x)
    assert (grad.flatten() - expected_grad).abs().max() < 1e-6 * expected_grad.abs().max()


@pytest.mark.parametrize("lambda_neg", [0.001, LAMBDA_NEG, float("inf")])
def test_expected_negative_at_15_million_entries_equals_float64(
    coco_image: Image, float64_scores: Scores, lambda_neg: float
) -> None:
    logits, labels, _ = coco_image
    neg = float64_scores[0]
    expected = torch.softmax(neg / lambda_neg, 0) @ neg
    found, _ = expected_scores(logits, labels, lambda_neg=lambda_neg)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
