"""The losses of the Triton kernels against plain torch in float64: on a GPU, or on the CPU in Triton's interpreter.

The interpreter has to be chosen before triton is imported: ``test_gpu_builds`` runs this file in it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from math import exp, inf, log, nan
from typing import Any

import pytest
import torch
from torch import Tensor

from drloss import CrossEntropyLoss, DRLoss, FocalLoss
from drloss import functional as F
from drloss.fused import on_gpu
from drloss.kernels import gpu as kernels
from drloss.kernels import gpu_layouts
from drloss.kernels.gpu_layouts import Layout
from drloss.labels import BACKGROUND, IGNORED
from drloss.surrogates import Surrogate
from tests.drloss.fused.test_two_passes import LOSSES, assert_same, value_and_gradients

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# Those that are whole losses on a GPU. Others take a few entries or pairs of them, in kernels of their own.
WHOLE = {
    name: of_class(**arguments)
    for name, (of_class, arguments) in LOSSES.items()
    if "mined" not in name and not name.startswith(("all", "worst"))
}

on_cpu = pytest.mark.skipif(not INTERPRETED, reason="test_gpu_builds runs these in Triton's interpreter")
on_cuda = pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="needs a CUDA device")

# The interpreter computes in numpy, which remarks on e^-x of a very negative x; its value is right.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")


@pytest.fixture(params=[pytest.param("cpu", marks=on_cpu), pytest.param("cuda", marks=[on_cuda, pytest.mark.gpu])])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "cpu":  # tensors on the CPU are to take the GPU's way
        monkeypatch.setattr(on_gpu, "losses_for", lambda levels: None if _is_double(levels) else kernels)
        # The interpreter takes its time for each step, with entries or without.
        cut_strips(monkeypatch, Layout(16, 2), Layout(32, 1), Layout(32, 2, paired=True))
    return str(request.param)


@pytest.fixture
def short_strips(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many strips per image, most of which begin within an anchor, and several blocks of partial sums."""
    cut_strips(monkeypatch, Layout(8, 2, warps=1), Layout(16, 1, warps=1), Layout(8, 2, warps=1, paired=True))
    monkeypatch.setitem(kernels._COMBINE, "BLOCK", 16)


def cut_strips(monkeypatch: pytest.MonkeyPatch, first: Layout, second: Layout, half: Layout) -> None:
    """Layouts of the two passes in float32, and of both in half precision."""
    of_half = {"sum": half, "write": half}
    layouts = {torch.float32: {"sum": first, "write": second}, torch.bfloat16: of_half, torch.float16: of_half}
    monkeypatch.setattr(gpu_layouts, "LAYOUTS", layouts)
    monkeypatch.setattr(kernels, "layout_of", gpu_layouts.layout_of.__wrapped__)


def _is_double(levels: Sequence[Tensor]) -> bool:
    return any(level.dtype == torch.float64 for level in levels)


def case(
    device: str, sizes: Sequence[int] = (70, 0, 1), num_classes: int = 20, num_images: int = 3
) -> tuple[list[Tensor], Tensor]:
    """A float32 [N, R_l, K] for each of ``sizes``, and labels [N, R] of all kinds, most of them positive."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(IGNORED, num_classes, (num_images, sum(sizes)), generator=generator)
    levels = [torch.randn(num_images, size, num_classes, generator=generator) * 3 for size in sizes]
    return [level.to(device) for level in levels], labels.to(device)


def clear(loss: Any) -> Any:
    """The same loss in plain torch."""
    kind, arguments = LOSSES[next(name for name, other in WHOLE.items() if other is loss)]
    return kind(**arguments, fused=False)


@pytest.mark.parametrize("name", WHOLE)
def test_losses_equal_float64_for_sets_and_groups_of_any_size(device: str, name: str) -> None:
    loss = WHOLE[name]
    assert_same((loss, clear(loss)), *case(device), images_per_group=2)
    assert_same((loss, clear(loss)), *case(device, (9,), 3, 2))


@pytest.mark.usefixtures("short_strips")
@pytest.mark.parametrize("name", ["dr", "dr-batch", "dr-lambda-small", "neg_only-batch", "focal-1.5"])
def test_losses_equal_float64_over_many_strips_and_blocks_of_sums(device: str, name: str) -> None:
    assert_same((WHOLE[name], clear(WHOLE[name])), *case(device, (81, 9), 80, 2))


@pytest.mark.parametrize("name", ["dr", "focal"])
@pytest.mark.parametrize("num_classes", [1, 7, 91, 1203])
def test_losses_equal_float64_for_any_number_of_classes(device: str, name: str, num_classes: int) -> None:
    assert_same((WHOLE[name], clear(WHOLE[name])), *case(device, (20, 3), num_classes, 2))


# The interpreter cuts a bfloat16 off where a GPU rounds it.
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["dr", "neg_only-batch", "focal-1.5"])
def test_losses_in_half_precision_lose_the_last_rounding_only(device: str, name: str, dtype: torch.dtype) -> None:
    levels, labels = case(device)
    assert_same((WHOLE[name], clear(WHOLE[name])), [level.to(dtype) for level in levels], labels)


@pytest.mark.parametrize("name", ["dr", "dr-batch", "neg_only", "focal-1.5"])
@pytest.mark.parametrize("label", [BACKGROUND, IGNORED, 0])
def test_losses_of_sets_without_positives_or_without_negatives(device: str, name: str, label: int) -> None:
    levels, labels = case(device, (5, 2), 1, 2)
    labels[0] = label
    assert_same((WHOLE[name], clear(WHOLE[name])), levels, labels)
    labels[:] = label
    assert_same((WHOLE[name], clear(WHOLE[name])), levels, labels)


def exponential(z: Tensor) -> Tensor:
    """A surrogate that no kernel knows."""
    return (2.0 * z).exp()


@pytest.mark.parametrize("scope", ["image", "batch"])
def test_any_callable_is_a_surrogate(device: str, scope: Any) -> None:
    surrogate: Surrogate = exponential
    levels, labels = case(device, (30, 4), 5)
    for loss in (F.dr_loss, F.neg_only_loss):
        results = []
        for fused, dtype in ((True, torch.float32), (False, torch.float64)):
            x = [level.to(dtype).requires_grad_() for level in levels]
            value = loss(x, labels, surrogate=surrogate, scope=scope, images_per_group=2, fused=fused)
            results.append((value.double(), *torch.autograd.grad(value, x)))
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)


def test_expected_scores_and_their_gradients_equal_float64(device: str) -> None:
    levels, labels = case(device)
    results = []
    for fused, dtype in ((True, torch.float32), (False, torch.float64)):
        x = [level.to(dtype).requires_grad_() for level in levels]
        p_neg, p_pos = F.expected_scores(x, labels, fused=fused)
        weight = torch.arange(1.0, 4.0, dtype=torch.float64, device=device)
        results.append((p_neg, p_pos, *torch.autograd.grad((weight * (p_neg + 3 * p_pos)).sum(), x)))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_gradient_is_multiplied_by_the_incoming_one(device: str) -> None:
    levels, labels = case(device, (30,), 5)
    for loss in (DRLoss(), DRLoss(pairing="neg_only"), FocalLoss()):
        x = levels[0].clone().requires_grad_()
        labels_of_level = labels[:, : x.shape[1]]
        once, eight_times = (torch.autograd.grad(f * loss(x, labels_of_level), x)[0] for f in (1.0, 8.0))
        torch.testing.assert_close(eight_times, 8 * once, rtol=1e-6, atol=0)


def test_scores_of_a_set_are_as_computed_by_hand(device: str) -> None:
    """Negatives 0.5 and 0.75 with lambda 0.25: weights e^2 and e^3. Positives 0.2 and 0.8 with lambda 0.3."""
    logits = torch.tensor([[[0.0, log(0.25)], [8.0, 8.0], [log(3.0), log(4.0)]]], device=device)
    labels = torch.tensor([[1, IGNORED, 1]], device=device)
    p_neg, p_pos = F.expected_scores(logits, labels, lambda_neg=0.25, lambda_pos=0.3)
    assert p_neg.item() == pytest.approx((0.5 * exp(2) + 0.75 * exp(3)) / (exp(2) + exp(3)), rel=1e-6)
    weights = exp(-0.2 / 0.3), exp(-0.8 / 0.3)
    assert p_pos.item() == pytest.approx((0.2 * weights[0] + 0.8 * weights[1]) / sum(weights), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_give_finite_values_and_gradients(device: str, dtype: torch.dtype) -> None:
    logits = torch.tensor([[[-inf, -1e30, -100.0, 0.0, 100.0, 1e30, inf, 0.0]]], device=device).repeat(1, 4, 1)
    labels = torch.tensor([[BACKGROUND, 2, 4, IGNORED]], device=device)
    logits[0, 3] = nan  # ignored: whatever its logits
    logits = logits.to(dtype)
    negatives = [0, 0, 0, 0.5, 1, 1, 1, 0.5, 0, 0, 0.5, 1, 1, 1, 0.5, 0, 0, 0, 0.5, 1, 1, 0.5]
    scores = torch.tensor(negatives, dtype=torch.float64)
    for lambda_ in (0.08, 0.001, inf):
        p_neg, _ = F.expected_scores(logits, labels, lambda_neg=lambda_)
        weights = ((scores - 1) / lambda_).exp()
        assert p_neg.item() == pytest.approx((weights @ scores / weights.sum()).item(), rel=1e-6)
        for pairing in ("dr", "neg_only"):
            _, (grad,) = value_and_gradients(DRLoss(lambda_neg=lambda_, pairing=pairing), [logits], labels)
            assert grad.isfinite().all()
            assert not grad[0, 3].any()
    logits = logits.clamp(-1e30, 1e30)  # the loss of an infinite logit is infinite
    for loss in (CrossEntropyLoss(), FocalLoss(), FocalLoss(gamma=0.5)):
        value, (grad,) = value_and_gradients(loss, [logits], labels)
        assert value < inf
        assert grad.isfinite().all()
        assert not grad[0, 3].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["dr", "dr-lambda-small", "neg_only", "focal", "cross_entropy"])
def test_loss_is_nan_where_a_logit_that_counts_is(device: str, name: str, dtype: torch.dtype) -> None:
    levels, labels = case(device)
    labels[1, 3] = BACKGROUND
    levels[0][1, 3, 7] = nan
    assert WHOLE[name]([level.to(dtype) for level in levels], labels).isnan()


@pytest.mark.parametrize("logit", [-20.0, -1.0, 10.0])
def test_pointwise_loss_keeps_its_digits_where_every_entry_is_equally_small(device: str, logit: float) -> None:
    logits, labels = torch.full((1, 9, 4), logit, device=device), torch.full((1, 9), BACKGROUND, device=device)
    z = torch.tensor(logit, dtype=torch.float64)
    for gamma, weight in ((0.0, 1.0), (2.0, 0.75), (1.5, 0.75)):
        loss = FocalLoss(gamma=gamma) if gamma else CrossEntropyLoss()
        expected = 36 * weight * z.sigmoid() ** gamma * torch.log1p(z.exp())
        assert loss(logits, labels).item() == pytest.approx(expected.item(), rel=3e-6 if gamma == 1.5 else 1e-6)


def test_losses_are_equal_from_run_to_run(device: str) -> None:
    levels, labels = case(device, (30,), 5)
    for loss in (DRLoss(), DRLoss(pairing="neg_only"), FocalLoss()):
        (value, grads), (again, grads_again) = (value_and_gradients(loss, levels, labels) for _ in range(2))
        assert value == again
        assert all(map(torch.equal, grads, grads_again))


def test_gradient_is_differentiable_once_only(device: str) -> None:
    levels, labels = case(device, (9,), 3, 1)
    x = levels[0].requires_grad_()
    for loss in (DRLoss(), FocalLoss()):
        (grad,) = torch.autograd.grad(loss(x, labels), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            torch.autograd.backward(grad.square().sum())


@pytest.mark.gpu
@pytest.mark.slow
@on_cuda
@pytest.mark.parametrize("name", ["dr", "neg_only", "focal", "cross_entropy"])
def test_losses_equal_float64_at_the_size_of_two_images_of_coco(name: str) -> None:
    levels, labels = case("cuda", (142_884, 35_721, 9_072, 2_268, 378), 80, 2)
    labels = torch.where(torch.rand(labels.shape, device="cuda") < 0.001, labels, BACKGROUND)
    assert_same((WHOLE[name], clear(WHOLE[name])), levels, labels)


def _step(loss: Any, levels: list[Tensor], labels: Tensor) -> tuple[Tensor, ...]:
    value = loss(levels, labels)
    return value.detach(), *torch.autograd.grad(value, levels)


@pytest.mark.gpu
@on_cuda
@pytest.mark.parametrize("name", WHOLE)
def test_losses_never_make_the_host_wait(name: str) -> None:
    if name == "dr-lambda-smaller-than-kernels-take":
        pytest.skip("computed by plain torch")
    levels, labels = case("cuda")
    levels = [level.requires_grad_() for level in levels]
    _step(WHOLE[name], levels, labels)  # compiling may wait
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says once per process that this is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        _step(WHOLE[name], levels, labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@on_cuda
@pytest.mark.parametrize("name", ["dr", "dr-batch", "neg_only", "focal", "cross_entropy"])
def test_a_step_in_a_cuda_graph_equals_the_same_step_outside(name: str) -> None:
    levels, labels = case("cuda")
    levels = [level.requires_grad_() for level in levels]
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        _step(WHOLE[name], levels, labels)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = _step(WHOLE[name], levels, labels)
    other, other_labels = case("cuda", num_classes=20)
    with torch.no_grad():
        for level, values in zip(levels, other, strict=True):
            level.copy_(-values)
    labels.copy_(other_labels.roll(1, dims=1))
    graph.replay()
    for found, expected in zip(captured, _step(WHOLE[name], levels, labels), strict=True):
        assert torch.equal(found, expected)
