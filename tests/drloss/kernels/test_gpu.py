"""The Triton kernels against the losses in plain torch, in float64: on a GPU, or on the CPU in Triton's interpreter.

The interpreter has to be chosen before triton is imported: ``test_gpu_builds`` runs this file in it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import exp, inf, log

import pytest
import torch
from torch import Tensor

from drloss import functional as F
from drloss.kernels import gpu as kernels
from drloss.labels import BACKGROUND, IGNORED
from tests.devices import host_never_waits

LAMBDA_NEG = 0.1 / log(3.5)
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

on_cpu = pytest.mark.skipif(not INTERPRETED, reason="test_triton_builds runs these in Triton's interpreter")
on_gpu = pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="needs a CUDA device")

# The interpreter computes in numpy, which remarks on e^-x of a very negative x; its value is right.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp2")


@pytest.fixture(params=[pytest.param("cpu", marks=on_cpu), pytest.param("cuda", marks=[on_gpu, pytest.mark.gpu])])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def case(device: str, sizes: Sequence[int] = (70, 0, 5, 1), num_classes: int = 20, num_images: int = 3) -> list[Tensor]:
    """Labels [N, R], then a float32 [N, R_l, K] for each of ``sizes``; labels of all kinds."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(IGNORED, num_classes, (num_images, sum(sizes)), generator=generator)
    levels = [torch.randn(num_images, size, num_classes, generator=generator) * 3 for size in sizes]
    return [labels.to(device), *(level.to(device) for level in levels)]


def reference_negatives(
    levels: Sequence[Tensor], labels: Tensor, sets: Sequence[int], lambda_: float
) -> tuple[Tensor, Tensor, Tensor]:
    """P- and log normaliser [S], and the gradient of each P- [N, R, K], by ``F.expected_value`` in float64."""
    x = torch.cat(list(levels), dim=1).double().requires_grad_()
    is_neg = torch.arange(x.shape[2], device=x.device) != labels.unsqueeze(2)
    is_neg &= (labels != IGNORED).unsqueeze(2)
    expected, normalizers = [], []
    for number in range(max(sets) + 1):
        images = [n for n, of_image in enumerate(sets) if of_image == number]
        candidates = is_neg[images].reshape(1, -1)
        p = x[images].sigmoid().reshape(1, -1).masked_fill(~candidates, 0.0)
        expected.append(F.expected_value(p, candidates, lambda_)[0])
        normalizers.append((p / lambda_).masked_fill(~candidates, -inf).logsumexp(dim=1)[0])
    values = torch.stack(expected)
    return values.detach(), torch.stack(normalizers).detach(), torch.autograd.grad(values.sum(), x)[0]


def check_negatives(levels: Sequence[Tensor], labels: Tensor, sets: Sequence[int], lambda_: float, rtol: float) -> None:
    """Both passes against the reference. ``rtol``: of a level's dtype, for gradients relative to the largest."""
    expected, normalizers, slopes = reference_negatives(levels, labels, sets, lambda_)
    found, found_normalizers, pos_logits = kernels.reduce_negatives(levels, labels, sets, 1 / lambda_)
    # p has 24 bits, so that p / lambda has an error of 6e-8 / lambda.
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(found_normalizers, normalizers, rtol=1e-6, atol=1e-6)
    joined = torch.cat(list(levels), dim=1)
    own = joined.gather(2, labels.clamp(min=0).unsqueeze(2)).squeeze(2).float().masked_fill(labels < 0, 0.0)
    assert torch.equal(pos_logits, own)

    # Large, as a scaled loss has it in half precision: float16 ends at 6e-8.
    grad_neg = torch.linspace(-1000, 2000, len(expected), dtype=torch.float64, device=labels.device)
    grad_pos = torch.randn(labels.shape, generator=torch.Generator().manual_seed(1)).to(labels.device)
    grads = kernels.negatives_gradient(levels, labels, sets, 1 / lambda_, found, found_normalizers, grad_neg, grad_pos)
    assert [(g.shape, g.dtype) for g in grads] == [(level.shape, level.dtype) for level in levels]
    wanted = slopes * grad_neg[torch.tensor(sets, device=labels.device)].reshape(-1, 1, 1)
    is_own = torch.arange(joined.shape[2], device=labels.device) == labels.unsqueeze(2)
    grad = torch.cat(grads, dim=1).double()
    torch.testing.assert_close(grad[is_own], grad_pos[labels >= 0].double(), rtol=rtol, atol=1e-7)
    error = (grad - wanted)[~is_own].abs()
    assert (grad[labels == IGNORED] == 0).all()
    assert error.max() <= rtol * wanted.abs().max()


@pytest.mark.parametrize("lambda_", [LAMBDA_NEG, 0.001, inf])
@pytest.mark.parametrize("sets", [(0, 1, 2), (0, 0, 1), (1, 0, 1)])
def test_negatives_equal_float64_for_every_grouping_of_images(device: str, sets: Sequence[int], lambda_: float) -> None:
    labels, *levels = case(device)
    check_negatives(levels, labels, sets, lambda_, rtol=1e-5 if lambda_ > 0.01 else 2e-4)


@pytest.mark.parametrize("num_classes", [1, 2, 3, 7, 80, 91])
def test_negatives_equal_float64_for_any_number_of_classes(device: str, num_classes: int) -> None:
    labels, *levels = case(device, (70, 3), num_classes, 2)
    check_negatives(levels, labels, (0, 1), LAMBDA_NEG, rtol=1e-5)


# The interpreter cuts a bfloat16 off where a GPU rounds it.
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.bfloat16, 2**-7), (torch.float16, 2**-11)])
def test_negatives_in_half_precision_lose_the_last_rounding_only(device: str, dtype: torch.dtype, rtol: float) -> None:
    labels, *levels = case(device)
    check_negatives([level.to(dtype) for level in levels], labels, (0, 0, 0), LAMBDA_NEG, rtol=rtol)


def test_negatives_of_a_set_are_as_computed_by_hand(device: str) -> None:
    """Scores 0.5 and 0.75 with lambda 0.25: weights e^2 and e^3."""
    logits = torch.tensor([[[0.0, 9.0], [8.0, 8.0], [log(3.0), -9.0]]], device=device)
    labels = torch.tensor([[1, IGNORED, 1]], device=device)
    p, normalizer, pos_logits = kernels.reduce_negatives([logits], labels, (0,), 4.0)
    assert p.item() == pytest.approx((0.5 * exp(2) + 0.75 * exp(3)) / (exp(2) + exp(3)), rel=1e-6)
    assert normalizer.item() == pytest.approx(log(exp(2) + exp(3)), rel=1e-6)
    assert pos_logits.tolist() == [[9.0, 0.0, -9.0]]


@pytest.mark.parametrize("label", [BACKGROUND, IGNORED, 0])
def test_negatives_without_positives_or_without_negatives(device: str, label: int) -> None:
    labels, *levels = case(device, (5, 2), 1, 2)
    labels[0] = label
    found, normalizer, _ = kernels.reduce_negatives(levels, labels, (0, 1), 1 / LAMBDA_NEG)
    if label == BACKGROUND:
        check_negatives(levels, labels, (0, 1), LAMBDA_NEG, rtol=1e-5)
    else:
        assert found[0] == 0
        assert normalizer[0] == -inf
    grads = kernels.negatives_gradient(
        levels, labels, (0, 1), 1 / LAMBDA_NEG, found, normalizer, torch.ones_like(found), torch.zeros(2, 7).to(device)
    )
    assert all(grad.isfinite().all() for grad in grads)
    assert label == BACKGROUND or not torch.cat(grads, dim=1)[0].any()


def test_extreme_logits_give_finite_values_and_gradients(device: str) -> None:
    logits = torch.tensor([[[-inf, -1e30, -100.0, 0.0, 100.0, 1e30, inf]]], device=device).repeat(1, 4, 1)
    labels = torch.tensor([[BACKGROUND, 2, 4, IGNORED]], device=device)
    logits[0, 3] = torch.nan  # ignored: whatever its logits
    for lambda_ in (LAMBDA_NEG, 0.001, inf):
        found, normalizer, _ = kernels.reduce_negatives([logits], labels, (0,), 1 / lambda_)
        scores = torch.tensor([0, 0, 0.5, 1, 1, 1, 0, 0, 0, 0.5, 1, 1, 1, 0, 0, 0, 0.5, 1, 1], dtype=torch.float64)
        weights = ((scores - 1) / lambda_).exp()
        assert found.item() == pytest.approx((weights @ scores / weights.sum()).item(), rel=1e-6)
        (grad,) = kernels.negatives_gradient(
            [logits], labels, (0,), 1 / lambda_, found, normalizer, found, torch.zeros(1, 4).to(device)
        )
        assert grad.isfinite().all()
    logits = logits.clamp(-1e30, 1e30)  # the loss of an infinite logit is infinite
    for kind, gamma in (("cross_entropy", 0.0), ("focal", 2.0), ("focal", 0.5)):
        assert kernels.pointwise_sum([logits], labels, (0,), kind, 0.25, gamma).isfinite()
        (grad,) = kernels.pointwise_gradient([logits], labels, (0,), kind, 0.25, gamma, torch.ones_like(found))
        assert grad.isfinite().all()
        assert not grad[0, 3].any()


@pytest.mark.parametrize(("kind", "gamma"), [("cross_entropy", 0.0), ("focal", 2.0), ("focal", 0.5), ("focal", 0.0)])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-7), (torch.float16, 2**-11)])
def test_pointwise_sums_and_gradients_equal_the_clear_losses(
    device: str, kind: kernels.Kind, gamma: float, dtype: torch.dtype, rtol: float
) -> None:
    labels, *levels = case(device)
    levels, groups = [level.to(dtype) for level in levels], (0, 0, 1)
    found = kernels.pointwise_sum(levels, labels, groups, kind, 0.3, gamma)
    scale = torch.tensor([2.0, 3.0], dtype=torch.float64, device=device)
    grads = kernels.pointwise_gradient(levels, labels, groups, kind, 0.3, gamma, scale)
    assert [(g.shape, g.dtype) for g in grads] == [(level.shape, level.dtype) for level in levels]

    x = torch.cat(levels, dim=1).double().requires_grad_()
    is_own = torch.arange(x.shape[2], device=device) == labels.unsqueeze(2)
    z = torch.where(is_own, -x, x)
    losses = torch.nn.functional.softplus(z, threshold=99)
    if kind == "focal":
        losses = losses * z.sigmoid() ** gamma * torch.where(is_own, 0.3, 0.7)
    per_image = losses.masked_fill((labels == IGNORED).unsqueeze(2), 0.0).sum(dim=(1, 2))
    expected = torch.stack([per_image[0] + per_image[1], per_image[2]])
    torch.testing.assert_close(found, expected.detach(), rtol=1e-6, atol=0)
    (wanted,) = torch.autograd.grad((expected * scale).sum(), x)
    assert (torch.cat(grads, dim=1) - wanted).abs().max() <= rtol * wanted.abs().max()


@pytest.mark.parametrize("logit", [-20.0, -10.0, -1.0, 1.0, 10.0])
def test_pointwise_sum_keeps_its_digits_where_every_entry_is_equally_small(device: str, logit: float) -> None:
    logits, labels = torch.full((1, 9, 4), logit, device=device), torch.full((1, 9), BACKGROUND, device=device)
    z = torch.tensor(logit, dtype=torch.float64)
    for kind, gamma, weight in (("cross_entropy", 0.0, 1.0), ("focal", 2.0, 0.75), ("focal", 1.5, 0.75)):
        expected = 36 * weight * z.sigmoid() ** gamma * torch.log1p(z.exp())
        found = kernels.pointwise_sum([logits], labels, (0,), kind, 0.25, gamma)
        assert found.item() == pytest.approx(expected.item(), rel=3e-6 if gamma == 1.5 else 1e-6)


def test_sums_are_equal_from_run_to_run(device: str) -> None:
    labels, *levels = case(device)
    runs = [
        (*kernels.reduce_negatives(levels, labels, (0, 0, 1), 12.5)[:2],
         kernels.pointwise_sum(levels, labels, (0, 0, 1), "focal", 0.25, 2.0))
        for _ in range(2)
    ]  # fmt: skip
    assert all(torch.equal(*pair) for pair in zip(*runs, strict=True))


@pytest.mark.gpu
@pytest.mark.slow
@on_gpu
def test_negatives_equal_float64_at_the_size_of_two_images_of_coco() -> None:
    labels, *levels = case("cuda", (142_884, 35_721, 9_072, 2_268, 378), 80, 2)
    labels = torch.where(torch.rand(labels.shape, device="cuda") < 0.001, labels, BACKGROUND)
    check_negatives(levels, labels, (0, 1), LAMBDA_NEG, rtol=1e-5)


@pytest.mark.gpu
@on_gpu
def test_kernels_never_make_the_host_wait() -> None:
    labels, *levels = case("cuda")
    scale = torch.ones(3, dtype=torch.float64, device="cuda")
    with host_never_waits():
        found, normalizer, pos_logits = kernels.reduce_negatives(levels, labels, (0, 1, 2), 12.5)
        kernels.negatives_gradient(levels, labels, (0, 1, 2), 12.5, found, normalizer, scale, pos_logits)
        kernels.pointwise_sum(levels, labels, (0, 1, 2), "focal", 0.25, 2.0)
        kernels.pointwise_gradient(levels, labels, (0, 1, 2), "focal", 0.25, 2.0, scale)
