"""All pairs by Triton, against the same sets made by hand in float64: on a GPU, or in Triton's interpreter.

``test_gpu_builds_of_sets`` runs this file in the interpreter, which has to be chosen before triton is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest
import torch
from torch import Tensor

from drloss import functional as F
from drloss.labels import BACKGROUND, IGNORED
from drloss.pairs import from_logits_gpu
from drloss.surrogates import Surrogate, hinge, logistic, quadratic
from tests.drloss.kernels.test_gpu import on_cpu, on_cuda
from tests.drloss.pairs.test_from_logits import batch, by_hand, gradients

SURROGATES = {
    "hinge": hinge,
    "quadratic": quadratic,
    "quadratic-0.2": partial(quadratic, rho=0.2),
    "logistic": logistic,
    "logistic-0.7": partial(logistic, L=0.7),
}

# The interpreter computes in numpy, which remarks on a NaN, and on e^-x of a very negative x.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp2", "ignore:invalid value encountered")


@pytest.fixture(params=[pytest.param("cpu", marks=on_cpu), pytest.param("cuda", marks=[on_cuda, pytest.mark.gpu])])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the kernels run. In the interpreter they take tensors of the CPU."""
    if request.param == "cpu":
        monkeypatch.setattr(from_logits_gpu, "_has_kernels", lambda levels: True)
    return str(request.param)


def inputs(device: str, num_classes: int, dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], Tensor]:
    levels, labels = batch(num_classes, dtype)
    return [level.to(device).requires_grad_() for level in levels], labels.to(device)


def computed(
    levels: Sequence[Tensor], labels: Tensor, surrogate: Surrogate, images_per_set: int = 1, margin: float = 0.3
) -> Tensor:
    means = from_logits_gpu.pair_means(
        levels, labels, margin=margin, surrogate=surrogate, images_per_set=images_per_set
    )
    assert means is not None
    return means


def check(levels: Sequence[Tensor], labels: Tensor, surrogate: Surrogate, images_per_set: int = 1) -> None:
    """Means and gradients are those by hand, on the CPU."""
    means = computed(levels, labels, surrogate, images_per_set)
    copies = [level.detach().cpu().requires_grad_() for level in levels]
    expected = by_hand(copies, labels.cpu(), 0.3, surrogate, images_per_set)
    torch.testing.assert_close(means.cpu(), expected, rtol=1e-6, atol=0)
    weights = torch.arange(1.0, len(means) + 1)
    grads = torch.autograd.grad((means * weights.to(means.device)).sum(), levels)
    for found, wanted in zip(grads, gradients(expected, copies), strict=True):
        tolerance = 2e-6 if found.dtype == torch.float32 else 2 * torch.finfo(found.dtype).eps
        torch.testing.assert_close(found.cpu(), wanted, rtol=tolerance, atol=1e-9 if tolerance < 1e-5 else 1e-6)
        assert torch.equal(found.cpu() == 0, wanted == 0) or surrogate is not hinge or tolerance > 1e-5


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize(("num_classes", "images_per_set"), [(1, 1), (7, 2), (40, 3), (80, 1)])
def test_means_equal_those_by_hand(device: str, name: str, num_classes: int, images_per_set: int) -> None:
    if num_classes < 10 and "logistic" in name:
        pytest.skip("too few negatives for so many cells")
    check(*inputs(device, num_classes), SURROGATES[name], images_per_set)


@pytest.mark.parametrize("name", ["hinge", "quadratic", "logistic-0.7"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_means_of_half_precision(device: str, name: str, dtype: torch.dtype) -> None:
    check(*inputs(device, 7, dtype), SURROGATES[name])


@pytest.mark.parametrize("name", ["hinge", "quadratic", "logistic-0.7"])
@pytest.mark.parametrize("value", [0.0, 2.0])
def test_scores_that_are_all_equal(device: str, name: str, value: float) -> None:
    levels, labels = inputs(device, 7)
    check([torch.full_like(level, value).requires_grad_() for level in levels], labels, SURROGATES[name])


@pytest.mark.parametrize("name", ["hinge", "quadratic", "logistic-0.7"])
def test_a_set_without_negatives_has_a_perfect_one(device: str, name: str) -> None:
    logits = torch.tensor([[[1.0], [-2.0], [0.0]]], device=device).repeat(1, 100, 1).requires_grad_()
    labels = torch.tensor([[0, 0, IGNORED]], device=device).repeat(1, 100)
    means = computed([logits], labels, SURROGATES[name])
    p = logits.detach().double().sigmoid().requires_grad_()
    expected = SURROGATES[name](0.3 - p[labels == 0]).mean()
    assert means.item() == pytest.approx(expected.item(), rel=1e-9)
    (grad,) = torch.autograd.grad(means.sum(), logits)
    (slope,) = torch.autograd.grad(expected, p)
    torch.testing.assert_close(grad.double(), slope * p.detach() * (1 - p.detach()), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["hinge", "quadratic", "logistic-0.7"])
def test_means_are_nan_where_a_negative_or_a_positive_is(device: str, name: str) -> None:
    levels, labels = inputs(device, 7)
    levels = [level.detach() for level in levels]
    levels[0][0, 2, 3] = torch.nan
    levels[1][2, 0, labels[2, 70]] = torch.nan
    levels[0][:, 0] = torch.nan  # ignored
    assert computed(levels, labels, SURROGATES[name]).isnan().tolist() == [True, False, True]


def test_infinite_logits_are_scores_of_0_and_1(device: str) -> None:
    levels, labels = inputs(device, 7)
    levels = [level.detach() for level in levels]
    levels[0][0, 2, 3], levels[0][0, 2, 4] = torch.inf, -torch.inf
    check([level.requires_grad_() for level in levels], labels, quadratic)


def test_results_are_equal_from_run_to_run(device: str) -> None:
    levels, labels = inputs(device, 7)
    for name in ("hinge", "quadratic", "logistic-0.7"):
        runs = []
        for _ in range(2):
            means = computed(levels, labels, SURROGATES[name])
            runs.append([means, *torch.autograd.grad(means.sum(), levels)])
        assert all(map(torch.equal, *runs))


def test_other_surrogates_and_too_many_cells_are_left_to_others(device: str) -> None:
    levels, labels = inputs(device, 7)
    for surrogate in (torch.exp, partial(logistic, L=1e3)):
        means = from_logits_gpu.pair_means(levels, labels, margin=0.3, surrogate=surrogate)
        assert means is None


@pytest.mark.gpu
@on_cuda
@pytest.mark.parametrize("name", SURROGATES)
def test_a_step_can_be_captured_in_a_graph(name: str) -> None:
    levels, labels = inputs("cuda", 40)
    loss = partial(F.all_pairs_loss, labels=labels, surrogate=SURROGATES[name])
    value = loss(levels)
    wanted = torch.autograd.grad(value, levels)
    value = value.detach()  # else its history ties the capture to the stream that it ran on
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = loss(levels)
        grads = torch.autograd.grad(captured, levels)
    graph.replay()
    assert captured.item() == value.item()
    assert all(map(torch.equal, grads, wanted))


@pytest.mark.gpu
@pytest.mark.slow
@on_cuda
@pytest.mark.parametrize("name", SURROGATES)
def test_fifteen_million_negatives(name: str) -> None:
    logits = torch.randn(1, 190_323, 80, generator=torch.Generator().manual_seed(0)) * 2 - 3
    labels = torch.full((1, 190_323), BACKGROUND)
    labels[0, ::4000] = 11
    losses, grads = [], []
    for each in (logits.cuda(), logits):
        x = each.requires_grad_()
        loss = F.all_pairs_loss(x, labels.to(x.device), surrogate=SURROGATES[name])
        losses.append(loss.item())
        grads.append(torch.autograd.grad(loss, x)[0].cpu())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert (grads[0] - grads[1]).abs().max() <= 1e-6 * grads[1].abs().max()
