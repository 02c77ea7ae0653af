"""The mean over all pairs against the explicit double sum, and its bounded memory."""

from __future__ import annotations

from math import exp, log1p
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from drloss import pairs
from drloss.pairs import pair_mean
from drloss.surrogates import SurrogateName, make_surrogate

NAMES = ["hinge", "quadratic", "logistic"]


def scalar_surrogate(name: str, z: float) -> tuple[float, float]:
    """l(z) and l'(z) with L = 6 and rho = 0.5."""
    if name == "hinge":
        return max(z, 0.0), float(z > 0)
    if name == "quadratic":
        return (z, 1.0) if z >= 0.5 else ((z + 0.5) ** 2 / 2, z + 0.5) if z > -0.5 else (0.0, 0.0)
    return log1p(exp(6 * z)) / 6, 1 / (1 + exp(-6 * z))


def double_sum(
    name: str, negatives: list[float], positives: list[float], margin: float
) -> tuple[float, Tensor, Tensor]:
    """Eq. 4 pair by pair with both gradients; positives as p, not -p."""
    total, grad_neg, grad_pos = 0.0, torch.zeros(len(negatives)), torch.zeros(len(positives))
    for i, p_neg in enumerate(negatives):
        for j, p_pos in enumerate(positives):
            value, slope = scalar_surrogate(name, p_neg - p_pos + margin)
            total += value
            grad_neg[i] += slope
            grad_pos[j] -= slope
    num_pairs = len(negatives) * len(positives)
    return total / num_pairs, grad_neg / num_pairs, grad_pos / num_pairs


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tile", [1, 7, 16, 2**18])
@pytest.mark.parametrize(("num_neg", "num_pos"), [(1, 1), (23, 1), (1, 9), (23, 9)])
@pytest.mark.parametrize("margin", [0.5, 0.0])
def test_pair_mean_equals_double_sum(
    name: SurrogateName, tile: int, num_neg: int, num_pos: int, margin: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "TILE_PAIRS_CPU", tile)
    generator = torch.Generator().manual_seed(num_neg + num_pos)
    negatives, positives = (torch.rand(num, generator=generator, dtype=torch.float64) for num in (num_neg, num_pos))
    positives[-1] = positives[0]  # equal positives are two
    expected, grad_neg, grad_pos = double_sum(name, negatives.tolist(), positives.tolist(), margin)
    negatives.requires_grad_()
    positives.requires_grad_()
    mean = pair_mean(negatives, -positives, margin=margin, surrogate=make_surrogate(name))
    torch.autograd.backward(mean)
    assert mean.item() == pytest.approx(expected, rel=1e-12, abs=1e-16)
    torch.testing.assert_close(negatives.grad, grad_neg.double(), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(positives.grad, grad_pos.double(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_pair_mean_does_not_count_pairs_at_the_kink(name: SurrogateName) -> None:
    # Exact in binary: 0.25 - 0.75 + 0.5 = 0.
    negatives = torch.tensor([0.25, 0.25], requires_grad=True)
    mean = pair_mean(negatives, torch.tensor([-0.75]), margin=0.5, surrogate=make_surrogate(name))
    torch.autograd.backward(mean)
    value, slope = scalar_surrogate(name, 0.0)
    assert mean.item() == pytest.approx(value)
    assert negatives.grad is not None
    assert negatives.grad.tolist() == pytest.approx([slope / 2, slope / 2])


def test_pair_mean_passes_the_incoming_gradient_on() -> None:
    negatives, positives = torch.rand(5, dtype=torch.float64), -torch.rand(3, dtype=torch.float64)
    for name in ("quadratic", "logistic"):

        def tripled(a: Tensor, b: Tensor, name: Any = name) -> Tensor:
            return 3 * pair_mean(a, b, margin=0.5, surrogate=make_surrogate(name))

        assert torch.autograd.gradcheck(tripled, (negatives.requires_grad_(), positives.requires_grad_()))


@pytest.mark.parametrize("name", NAMES)
def test_pair_mean_without_gradient_equals_with_gradient(name: SurrogateName) -> None:
    negatives, positives = torch.rand(50), -torch.rand(7)
    surrogate = make_surrogate(name)
    plain = pair_mean(negatives, positives, margin=0.5, surrogate=surrogate)
    assert not plain.requires_grad
    assert plain.item() == pair_mean(negatives.requires_grad_(), positives, margin=0.5, surrogate=surrogate).item()


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the largest number of elements of any tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("num_neg", "num_pos"), [(300_000, 30), (2_000, 4_000)])
def test_pair_mean_never_holds_the_matrix_of_pairs(name: SurrogateName, num_neg: int, num_pos: int) -> None:
    negatives, positives = torch.rand(num_neg, requires_grad=True), (-torch.rand(num_pos)).requires_grad_()
    with LargestTensor() as largest:
        torch.autograd.backward(pair_mean(negatives, positives, margin=0.5, surrogate=make_surrogate(name)))
    assert negatives.grad is not None
    assert positives.grad is not None
    assert largest.numel >= num_neg  # the mode saw the work
    assert largest.numel <= max(pairs.TILE_PAIRS_CPU, num_neg) < num_neg * num_pos / 10


def test_hinge_pair_mean_handles_more_pairs_than_memory_could_hold() -> None:
    # 3e10 pairs; each negative at 0.75 against each positive at 0.75 costs the margin.
    negatives, positives = torch.full((1_000_000,), 0.75), torch.full((30_000,), -0.75, requires_grad=True)
    mean = pair_mean(negatives, positives, margin=0.5, surrogate=make_surrogate("hinge"))
    torch.autograd.backward(mean)
    assert mean.item() == pytest.approx(0.5, rel=1e-12)
    assert positives.grad is not None
    torch.testing.assert_close(positives.grad, torch.full((30_000,), 1 / 30_000))
