"""The mean over all pairs against the explicit double sum, in every way that it is computed; and its bounded memory."""

from __future__ import annotations

from functools import partial
from math import exp, log1p
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from drloss.pairs import grid, passes_cpu, passes_torch
from drloss.pairs import mean as pairs
from drloss.pairs import tiled as pairs_tiled
from drloss.pairs.grid import INTERPOLATION_ERROR, piecewise
from drloss.pairs.mean import pair_mean
from drloss.surrogates import Surrogate, SurrogateName, hinge, logistic, make_surrogate, quadratic

NAMES = ["hinge", "quadratic", "logistic"]
SURROGATES = [hinge]
SURROGATES += [partial(quadratic, rho=rho) for rho in (0.2, 0.5, 2.0)]
SURROGATES += [partial(logistic, L=L) for L in (0.5, 4.0, 6.0, 10.0, 30.0, 200.0)]


def words(surrogate: Surrogate) -> str:
    """A test's name for it, the same in every process."""
    function = surrogate.func if isinstance(surrogate, partial) else surrogate
    return " ".join([function.__name__, *map(str, getattr(surrogate, "keywords", {}).values())])


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


def matrix_mean(negatives: Tensor, positives: Tensor, margin: float, surrogate: Surrogate) -> list[Tensor]:
    """Value and both gradients from the matrix of pairs, in float64; positives as -p."""
    a, b = (values.detach().double().requires_grad_() for values in (negatives, positives))
    mean = surrogate(a.unsqueeze(1) + (b + margin)).mean()
    return [mean.detach(), *torch.autograd.grad(mean, (a, b))]


def computed(negatives: Tensor, positives: Tensor, margin: float, surrogate: Surrogate) -> list[Tensor]:
    """Value and both gradients of ``pair_mean``."""
    a, b = (values.detach().requires_grad_() for values in (negatives, positives))
    mean = pair_mean(a, b, margin=margin, surrogate=surrogate)
    return [mean.detach(), *torch.autograd.grad(mean, (a, b))]


def scores(num_neg: int, num_pos: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """p of negatives and -p of positives, on a grid of 1/64 in part: ties, scores at knots, 0 and 1 exactly."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(num_neg + num_pos, generator=generator, dtype=torch.float64)
    values[::2] = (values[::2] * 64).round() / 64
    return values[:num_neg], -values[num_neg:]


def assert_equal_to_matrix(
    negatives: Tensor, positives: Tensor, margin: float, surrogate: Surrogate, rtol: float
) -> None:
    expected = matrix_mean(negatives, positives, margin, surrogate)
    for found, wanted in zip(computed(negatives, positives, margin, surrogate), expected, strict=True):
        atol = max(rtol * float(wanted.abs().max()), torch.finfo(found.dtype).tiny)
        torch.testing.assert_close(found.double(), wanted, rtol=rtol, atol=atol)


@pytest.fixture(params=[passes_cpu, passes_torch])
def linear(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Both implementations of the passes, used however few pairs there are."""
    monkeypatch.setattr(grid, "FEW_PAIRS", 0)
    monkeypatch.setattr(pairs, "_passes", lambda _: request.param)
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("num_neg", "num_pos"), [(1, 1), (23, 1), (1, 9), (23, 9)])
@pytest.mark.parametrize("margin", [0.5, 0.0])
@pytest.mark.parametrize("few", [0, 1000])
def test_pair_mean_equals_double_sum(
    name: SurrogateName, num_neg: int, num_pos: int, margin: float, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "FEW_PAIRS", few)
    negatives, positives = scores(num_neg, num_pos)
    expected, grad_neg, grad_pos = double_sum(name, negatives.tolist(), (-positives).tolist(), margin)
    mean, by_neg, by_pos = computed(negatives, positives, margin, make_surrogate(name))
    assert mean.item() == pytest.approx(expected, rel=1e-12, abs=1e-16)
    torch.testing.assert_close(by_neg, grad_neg.double(), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(by_pos, -grad_pos.double(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("surrogate", SURROGATES, ids=words)
@pytest.mark.parametrize(("num_neg", "num_pos"), [(60_000, 1), (60_000, 2), (6_000, 150), (2, 2_000), (1, 1)])
@pytest.mark.usefixtures("linear")
def test_linear_pair_mean_equals_matrix_of_pairs(surrogate: Surrogate, num_neg: int, num_pos: int) -> None:
    negatives, positives = scores(num_neg, num_pos)
    for margin in (0.5, 0.0, -0.3, 1.0):
        assert_equal_to_matrix(negatives, positives, margin, surrogate, 1e-10)
        assert_equal_to_matrix(negatives.float(), positives.float(), margin, surrogate, 1e-6)


@pytest.mark.parametrize("surrogate", SURROGATES, ids=words)
@pytest.mark.parametrize("score", [0.0, 0.25, 1.0])
@pytest.mark.usefixtures("linear")
def test_linear_pair_mean_equals_matrix_of_pairs_for_equal_scores(surrogate: Surrogate, score: float) -> None:
    negatives, positives = torch.full((3_000,), score), torch.full((5,), -score)
    for margin in (0.0, 0.5, -0.5):
        assert_equal_to_matrix(negatives, positives, margin, surrogate, 1e-6)


@pytest.mark.parametrize("surrogate", SURROGATES, ids=words)
@pytest.mark.usefixtures("linear")
def test_linear_pair_mean_takes_values_outside_0_and_1(surrogate: Surrogate) -> None:
    negatives, positives = scores(5_000, 20)
    assert_equal_to_matrix(negatives * 3 - 7, positives * 2 + 6, 0.5, surrogate, 1e-10)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    negatives=st.lists(st.integers(0, 16), min_size=1, max_size=30),
    positives=st.lists(st.integers(0, 16), min_size=1, max_size=30),
    margin=st.integers(-16, 16),
    rho=st.integers(1, 24),
)
def test_linear_pair_mean_is_exact_at_knots(
    linear: ModuleType, negatives: list[int], positives: list[int], margin: int, rho: int
) -> None:
    # All in sixteenths: every z is exact, and many are at 0, rho or -rho.
    a, b = torch.tensor(negatives).double() / 16, -torch.tensor(positives).double() / 16
    for surrogate in (hinge, partial(quadratic, rho=rho / 16)):
        assert_equal_to_matrix(a, b, margin / 16, surrogate, 1e-13 if linear is passes_cpu else 1e-11)


@pytest.mark.parametrize("L", [0.1, 0.5, 1.0, 3.0, 6.0, 10.0, 30.0, 100.0, 400.0, 1000.0])
@pytest.mark.parametrize("depth", [0.0, 600.0])
def test_interpolated_slope_keeps_its_bound_in_the_flat_tail_too(L: float, depth: float) -> None:
    negatives = torch.linspace(0, 1, 300_000, dtype=torch.float64)
    b = torch.tensor([-min(2.0, depth / L)], dtype=torch.float64)
    form = piecewise(partial(logistic, L=L), b, (0.0, 1.0), len(negatives))
    assert form is not None
    slopes = form.sums(passes_cpu.moments(negatives, form.grid)).slopes
    found = passes_cpu.polynomials(negatives, form.grid, slopes)
    expected = torch.sigmoid(L * (negatives + b))
    error = ((found - expected) / expected).abs().max().item()
    # In float64, L z itself is rounded.
    assert error > INTERPOLATION_ERROR / 1000
    assert error < INTERPOLATION_ERROR + 1e-15 * L


@pytest.mark.parametrize("name", NAMES)
def test_linear_passes_on_the_cpu_equal_those_of_torch(name: SurrogateName) -> None:
    negatives, positives = scores(200_000, 7)
    form = piecewise(make_surrogate(name), positives + 0.5, (0.0, 1.0), len(negatives))
    assert form is not None
    sums, expected = (form.sums(passes.moments(negatives, form.grid)) for passes in (passes_cpu, passes_torch))
    torch.testing.assert_close(sums, expected, rtol=1e-11, atol=1e-11)
    slopes, by_torch = (passes.polynomials(negatives, form.grid, sums.slopes) for passes in (passes_cpu, passes_torch))
    torch.testing.assert_close(slopes, by_torch, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_pair_mean_is_equal_from_run_to_run_and_for_any_number_of_threads(name: SurrogateName) -> None:
    negatives, positives = (values.float() for values in scores(500_001, 40))
    num_threads = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 1, 2, 5):
            torch.set_num_threads(threads)
            results.append(computed(negatives, positives, 0.5, make_surrogate(name)))
    finally:
        torch.set_num_threads(num_threads)
    for result in results[1:]:
        assert all(torch.equal(found, first) for found, first in zip(result, results[0], strict=True))


@pytest.mark.parametrize("tile", [1, 7, 16, 2**18])
@pytest.mark.parametrize("few", [0, 1000])
def test_pair_mean_takes_any_surrogate(tile: int, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs_tiled, "TILE_PAIRS_CPU", tile)
    monkeypatch.setattr(grid, "FEW_PAIRS", few)
    negatives, positives = scores(23, 9)
    assert_equal_to_matrix(negatives, positives, 0.5, lambda z: torch.exp(z), 1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("few", [0, 1000])
def test_pair_mean_does_not_count_pairs_at_the_kink(
    name: SurrogateName, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "FEW_PAIRS", few)
    # Exact in binary: 0.25 - 0.75 + 0.5 = 0.
    mean, by_neg, _ = computed(torch.tensor([0.25, 0.25]), torch.tensor([-0.75]), 0.5, make_surrogate(name))
    value, slope = scalar_surrogate(name, 0.0)
    assert mean.item() == pytest.approx(value)
    assert by_neg.tolist() == pytest.approx([slope / 2, slope / 2])


@pytest.mark.usefixtures("linear")
def test_pair_mean_passes_the_incoming_gradient_on() -> None:
    negatives, positives = torch.rand(5, dtype=torch.float64), -torch.rand(3, dtype=torch.float64)
    for surrogate in (partial(quadratic, rho=0.4), partial(logistic, L=0.001)):

        def tripled(a: Tensor, b: Tensor, surrogate: Surrogate = surrogate) -> Tensor:
            return 3 * pair_mean(a, b, margin=0.5, surrogate=surrogate)

        assert torch.autograd.gradcheck(tripled, (negatives.requires_grad_(), positives.requires_grad_()))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_neg", [50, 50_000])
def test_pair_mean_without_gradient_equals_with_gradient(name: SurrogateName, num_neg: int) -> None:
    negatives, positives = torch.rand(num_neg), -torch.rand(7)
    surrogate = make_surrogate(name)
    plain = pair_mean(negatives, positives, margin=0.5, surrogate=surrogate)
    assert not plain.requires_grad
    assert plain.item() == pair_mean(negatives.requires_grad_(), positives, margin=0.5, surrogate=surrogate).item()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_neg", [50, 50_000])
def test_pair_mean_of_nan_is_nan(name: SurrogateName, num_neg: int) -> None:
    negatives, positives = torch.rand(num_neg), -torch.rand(7)
    negatives[3] = torch.nan
    assert pair_mean(negatives, positives, margin=0.5, surrogate=make_surrogate(name)).isnan()
    assert pair_mean(negatives[4:], positives * torch.nan, margin=0.5, surrogate=make_surrogate(name)).isnan()


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the most bytes behind any tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor):
                self.num_bytes = max(self.num_bytes, tensor.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("name", [*NAMES, "other"])
@pytest.mark.parametrize(("num_neg", "num_pos"), [(300_000, 30), (2_000, 4_000)])
def test_pair_mean_never_holds_the_matrix_of_pairs(name: str, num_neg: int, num_pos: int) -> None:
    surrogate = torch.nn.functional.silu if name == "other" else make_surrogate(name)  # type: ignore[arg-type]
    negatives, positives = torch.rand(num_neg, requires_grad=True), (-torch.rand(num_pos)).requires_grad_()
    with LargestTensor() as largest:
        torch.autograd.backward(pair_mean(negatives, positives, margin=0.5, surrogate=surrogate))
    assert negatives.grad is not None
    assert positives.grad is not None
    assert largest.num_bytes >= 4 * num_neg  # the mode saw the work
    assert largest.num_bytes <= 8 * max(pairs_tiled.TILE_PAIRS_CPU, num_neg) < num_neg * num_pos


def test_hinge_pair_mean_handles_more_pairs_than_memory_could_hold() -> None:
    # 3e10 pairs; each negative at 0.75 against each positive at 0.75 costs the margin.
    negatives, positives = torch.full((1_000_000,), 0.75), torch.full((30_000,), -0.75, requires_grad=True)
    mean = pair_mean(negatives, positives, margin=0.5, surrogate=make_surrogate("hinge"))
    torch.autograd.backward(mean)
    assert mean.item() == pytest.approx(0.5, rel=1e-12)
    assert positives.grad is not None
    torch.testing.assert_close(positives.grad, torch.full((30_000,), 1 / 30_000))
