"""Hard negatives and the worst case by Triton, against plain torch in float64: on a GPU, or in Triton's interpreter.

``test_gpu_builds_of_sets`` runs this file in the interpreter, which has to be chosen before triton is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf, nan
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from drloss import CrossEntropyLoss, DRLoss
from drloss.fused import hardest_on_gpu
from drloss.labels import BACKGROUND, IGNORED
from tests.drloss.fused.test_two_passes import assert_same, value_and_gradients
from tests.drloss.kernels.test_gpu import on_cpu, on_cuda

LOSSES: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "dr": (DRLoss, {}),
    "dr-few": (DRLoss, {"ratio": 0.1}),
    "dr-all": (DRLoss, {"ratio": 1e9}),
    "dr-batch": (DRLoss, {"scope": "batch", "surrogate": "quadratic"}),
    "dr-lambda-inf": (DRLoss, {"lambda_pos": inf, "lambda_neg": inf}),
    "dr-lambda-small": (DRLoss, {"lambda_neg": 0.001, "lambda_pos": 0.01}),
    "neg_only": (DRLoss, {"pairing": "neg_only"}),
    "worst_case": (DRLoss, {"pairing": "worst_case"}),
    "worst_case-batch": (DRLoss, {"pairing": "worst_case", "scope": "batch"}),
    "cross_entropy": (CrossEntropyLoss, {"mining": "hard_negative"}),
}
Pair = tuple[nn.Module, nn.Module]

# The interpreter computes in numpy, which remarks on e^-x of a very negative x; its value is right.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp2", "ignore:invalid value encountered")


@pytest.fixture(params=[pytest.param("cpu", marks=on_cpu), pytest.param("cuda", marks=[on_cuda, pytest.mark.gpu])])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where the kernels run. In the interpreter they take tensors of the CPU."""
    if request.param == "cpu":
        monkeypatch.setattr(hardest_on_gpu, "_has_kernels", lambda batch: batch.dtype == torch.float32)
    calls: list[Any] = []
    choose = hardest_on_gpu._choose
    monkeypatch.setattr(hardest_on_gpu, "_choose", lambda *args: calls.append(args) or choose(*args))
    yield str(request.param)
    assert calls, "the kernels were not used"


def losses(name: str) -> Pair:
    """One loss twice: fused, and in plain torch."""
    kind, arguments = LOSSES[name]
    if kind is DRLoss and "worst_case" not in name:
        arguments = {"prior": "hard_negative", **arguments}
    return kind(**arguments), kind(**arguments, fused=False)


def case(
    device: str, sizes: tuple[int, ...] = (300, 0, 5, 1), num_classes: int = 20, num_images: int = 3
) -> tuple[list[Tensor], Tensor]:
    """Three tiles of an image's first level, and labels of all kinds, one in ten positive."""
    generator = torch.Generator().manual_seed(0)
    levels = [torch.randn(num_images, size, num_classes, generator=generator) * 2 for size in sizes]
    draw = torch.rand(num_images, sum(sizes), generator=generator)
    labels = torch.where(draw < 0.1, torch.randint(num_classes, draw.shape, generator=generator), BACKGROUND)
    return [level.to(device) for level in levels], labels.masked_fill(draw > 0.9, IGNORED).to(device)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_equal_float64(device: str, name: str) -> None:
    assert_same(losses(name), *case(device))


@pytest.mark.parametrize("num_classes", [1, 3, 80, 91])
def test_losses_equal_float64_for_any_number_of_classes(device: str, num_classes: int) -> None:
    assert_same(losses("dr"), *case(device, (150, 3), num_classes, 1))


@pytest.mark.parametrize("name", ["dr", "cross_entropy", "worst_case"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_in_half_precision_choose_the_same_entries(device: str, name: str, dtype: torch.dtype) -> None:
    levels, labels = case(device)
    fused, clear = losses(name)
    value, grads = value_and_gradients(fused, [level.to(dtype) for level in levels], labels)
    expected, wanted = value_and_gradients(clear, [level.to(dtype).double() for level in levels], labels)
    assert value == pytest.approx(expected, rel=1e-6)
    for grad, exact in zip(grads, wanted, strict=True):
        assert grad.dtype == dtype
        # The interpreter cuts a bfloat16 off where a GPU rounds it.
        torch.testing.assert_close(grad.double(), exact, rtol=2 * torch.finfo(dtype).eps, atol=2e-7)


@pytest.mark.parametrize("images_per_group", [1, 2])
def test_groups_of_images_are_ranked_apart(device: str, images_per_group: int) -> None:
    assert_same(losses("dr-batch"), *case(device), images_per_group=images_per_group)


@pytest.mark.parametrize("kind", ["no positives", "no negatives", "first image ignored"])
@pytest.mark.parametrize("name", ["dr", "cross_entropy", "worst_case"])
def test_sets_that_are_empty_or_full(device: str, name: str, kind: str) -> None:
    levels, labels = case(device, (30, 2), 1 if kind == "no negatives" else 4, 2)
    if kind == "no positives":
        labels = labels.clamp(max=BACKGROUND)
    elif kind == "no negatives":
        labels = torch.where(labels == BACKGROUND, 0, labels)
    else:
        labels[0] = IGNORED
    assert_same(losses(name), levels, labels)


@pytest.mark.parametrize("ratio", [1.0, 30.0, 300.0, 2000.0])
@pytest.mark.parametrize("scope", ["image", "batch"])
def test_the_first_of_equal_negatives_are_kept_over_tiles_levels_and_images(
    device: str, ratio: float, scope: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    levels = [torch.randint(4, (2, size, 5), generator=generator).to(device).float() for size in (1100, 40)]
    levels[0][0, 0] = -0.0  # equal to 0
    labels = torch.full((2, 1140), BACKGROUND, device=device)
    labels[:, ::700] = 1
    pair = [DRLoss(prior="hard_negative", ratio=ratio, scope=scope, fused=fused) for fused in (True, False)]  # type: ignore[arg-type]
    fast, clear = (value_and_gradients(loss, levels, labels) for loss in pair)
    assert fast[0] == pytest.approx(clear[0], rel=1e-6)
    for grad, expected in zip(fast[1], clear[1], strict=True):
        assert torch.equal(grad != 0, expected != 0)


def test_counts_round_halves_to_even(device: str) -> None:
    """0.5 * 3 = 1.5 and 0.5 * 5 = 2.5 keep two negatives each."""
    logits = torch.arange(2 * 20.0, device=device).reshape(2, 20, 1) / 40
    labels = torch.full((2, 20), BACKGROUND, device=device)
    labels[0, :3], labels[1, :5] = 0, 0
    _, (grad,) = value_and_gradients(DRLoss(prior="hard_negative", ratio=0.5), [logits], labels)
    assert ((grad != 0).squeeze(2) & (labels < 0)).sum(dim=1).tolist() == [2, 2]


def test_equal_extremes_share_the_gradient(device: str) -> None:
    levels, labels = case(device, (300, 5), 20, 2)
    levels[0][0, [3, 270], 1] = 9.0
    labels[0, [3, 270]] = BACKGROUND
    labels[0, [5, 100, 301]] = 2
    levels[0][0, [5, 100], 2], levels[1][0, 1, 2] = -9.0, -9.0
    _, grads = value_and_gradients(losses("worst_case")[0], levels, labels)
    assert grads[0][0].nonzero().tolist() == [[3, 1], [5, 2], [100, 2], [270, 1]]
    assert grads[1][0].nonzero().tolist() == [[1, 2]]
    assert_same(losses("worst_case"), levels, labels)


@pytest.mark.parametrize("name", ["dr", "cross_entropy", "worst_case"])
@pytest.mark.parametrize("positive", [False, True])
def test_loss_is_nan_where_a_logit_that_counts_is(device: str, name: str, positive: bool) -> None:
    levels, labels = case(device)
    labels[1, 4] = 2 if positive else BACKGROUND
    levels[0][1, 4, 2] = nan
    assert losses(name)[0](levels, labels).isnan()


@pytest.mark.parametrize("name", ["dr", "worst_case"])
def test_infinite_logits_are_scores_of_0_and_1(device: str, name: str) -> None:
    levels, labels = case(device)
    labels[:, :2] = BACKGROUND
    levels[0][0, 0], levels[0][1, :2] = inf, -inf
    assert_same(losses(name), levels, labels)


def test_results_are_equal_from_run_to_run(device: str) -> None:
    levels, labels = case(device)
    first, second = (value_and_gradients(losses("dr")[0], levels, labels) for _ in range(2))
    assert first[0] == second[0]
    assert all(map(torch.equal, first[1], second[1]))


@pytest.mark.gpu
@on_cuda
@pytest.mark.parametrize("name", LOSSES)
def test_a_step_can_be_captured_in_a_graph(name: str) -> None:
    levels, labels = case("cuda")
    levels = [level.requires_grad_() for level in levels]
    loss, (value, wanted) = losses(name)[0], value_and_gradients(losses(name)[0], levels, labels)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = loss(levels, labels)
        grads = torch.autograd.grad(captured, levels)
    graph.replay()
    assert captured.item() == value
    assert all(map(torch.equal, grads, wanted))


@pytest.mark.gpu
@pytest.mark.slow
@on_cuda
@pytest.mark.parametrize("name", ["dr", "dr-all", "worst_case"])
def test_losses_equal_float64_at_the_size_of_two_images_of_coco(name: str) -> None:
    levels, labels = case("cuda", (142_884, 35_721, 9_072, 2_268, 378), 80, 2)
    labels = torch.where(torch.rand(labels.shape, device="cuda") < 0.001, labels, BACKGROUND)
    assert_same(losses(name), levels, labels)
