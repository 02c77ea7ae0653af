"""Hinge, quadratic and logistic: values, limits, gradients."""

from __future__ import annotations

from functools import partial
from math import exp, inf, log, log1p

import pytest
import torch

from drloss.surrogates import SurrogateName, form_of, hinge, logistic, make_surrogate, quadratic

GRID = torch.linspace(-2, 2, 401, dtype=torch.float64)


def slope(surrogate: SurrogateName, z: float, dtype: torch.dtype = torch.float64, **parameters: float) -> float:
    point = torch.tensor(z, dtype=dtype, requires_grad=True)
    torch.autograd.backward(make_surrogate(surrogate, **parameters)(point))
    assert point.grad is not None
    return point.grad.item()


def test_surrogates_equal_arithmetic() -> None:
    z = torch.tensor([-1.0, -0.25, 0.0, 0.25, 0.5, 1.0], dtype=torch.float64)
    assert hinge(z).tolist() == [0.0, 0.0, 0.0, 0.25, 0.5, 1.0]
    # (z + 0.5)^2 / 2 inside (-0.5, 0.5)
    assert quadratic(z, rho=0.5).tolist() == [0.0, 0.03125, 0.125, 0.28125, 0.5, 1.0]
    expected = [
        log1p(exp(-4)) / 4,
        log1p(exp(-1)) / 4,
        log(2) / 4,
        log1p(exp(1)) / 4,
        log1p(exp(2)) / 4,
        log1p(exp(4)) / 4,
    ]
    assert logistic(z, L=4.0).tolist() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("name", "z", "expected"),
    [
        ("hinge", -0.1, 0.0),
        ("hinge", 0.0, 0.0),
        ("hinge", 0.1, 1.0),
        ("quadratic", -0.5, 0.0),
        ("quadratic", -0.25, 0.25),
        ("quadratic", 0.0, 0.5),
        ("quadratic", 0.5, 1.0),  # the corner, where a sum of two pieces would count twice
        ("quadratic", 0.7, 1.0),
        ("logistic", 0.0, 0.5),
        ("logistic", 0.5, 1 / (1 + exp(-3))),
        ("logistic", -0.5, 1 / (1 + exp(3))),
    ],
)
def test_slopes_equal_arithmetic(name: SurrogateName, z: float, expected: float) -> None:
    assert slope(name, z) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["hinge", "quadratic", "logistic"])
def test_surrogates_are_stable_far_out(name: SurrogateName, dtype: torch.dtype) -> None:
    surrogate = make_surrogate(name, L=1000.0)
    z = torch.tensor([float("-inf"), -1e4, 1e4], dtype=dtype)
    assert surrogate(z).tolist() == [0.0, 0.0, 1e4]
    assert [slope(name, float(point), dtype, L=1000.0) for point in z] == [0.0, 0.0, 1.0]


def test_logistic_is_exact_at_its_switch_to_the_identity() -> None:
    # Just below and above L z = 40, and at 30, where torch's default switch is off by exp(-30).
    for z in (30 / 6, 39.9 / 6, 40.1 / 6):
        assert logistic(torch.tensor(z, dtype=torch.float64), L=6.0).item() == pytest.approx(
            z + log1p(exp(-6 * z)) / 6, rel=2e-16, abs=0
        )


def test_smooth_surrogates_bound_the_hinge_and_approach_it() -> None:
    # The gap is largest at z = 0: log(2) / L, and rho / 4.
    for L in (1.0, 6.0, 1e6):
        gap = logistic(GRID, L=L) - hinge(GRID)
        assert gap.min() >= 0
        assert gap.max().item() == pytest.approx(log(2) / L, rel=1e-9)
    for rho in (1.0, 0.5, 1e-6):
        gap = quadratic(GRID, rho=rho) - hinge(GRID)
        assert gap.min() >= -1e-15
        assert gap.max().item() == pytest.approx(rho / 4, rel=1e-9)


@pytest.mark.parametrize("name", ["quadratic", "logistic"])
def test_slopes_equal_finite_differences(name: SurrogateName) -> None:
    points = GRID[::7].clone().requires_grad_()
    assert torch.autograd.gradcheck(make_surrogate(name), points)


@pytest.mark.parametrize(
    "parameters", [{"L": 0.0}, {"L": -1.0}, {"L": float("inf")}, {"rho": 0.0}, {"rho": float("nan")}]
)
def test_make_surrogate_refuses_parameter_out_of_range(parameters: dict[str, float]) -> None:
    ((name, value),) = parameters.items()
    with pytest.raises(ValueError, match=rf"{name} = {value!r} is not valid. Valid: a number > 0 and finite"):
        make_surrogate("hinge", **parameters)


def test_make_surrogate_refuses_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"Unknown surrogate 'softplus'\. Known: logistic, quadratic, hinge"):
        make_surrogate("softplus")  # type: ignore[arg-type]


def test_form_of_surrogate_is_its_name_and_parameter() -> None:
    assert form_of(hinge) == ("hinge", 0.0)
    assert form_of(logistic) == form_of(make_surrogate("logistic")) == ("logistic", 6.0)
    assert form_of(quadratic) == ("quadratic", 0.5)
    assert form_of(make_surrogate("logistic", L=2)) == ("logistic", 2.0)
    assert form_of(partial(quadratic, rho=0.25)) == ("quadratic", 0.25)


def test_form_of_anything_else_is_unknown() -> None:
    learned = torch.tensor(6.0, requires_grad=True)
    assert form_of(partial(logistic, L=learned)) is None
    for surrogate in (torch.exp, lambda z: hinge(z), partial(torch.exp), partial(hinge, z=torch.zeros(1))):
        assert form_of(surrogate) is None
    for bound in (partial(logistic, L=inf), partial(logistic, L=-1.0), partial(quadratic, torch.zeros(1))):
        assert form_of(bound) is None
