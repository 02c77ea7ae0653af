"""Fig. 3: distances of the smooth surrogates from the hinge, as derived from Eqs. 7 and 8."""

from __future__ import annotations

import math

import pytest

from harness.figures import fig3


def test_largest_distances_are_at_zero_and_as_derived() -> None:
    """Quadratic: (z + rho)^2 / (4 rho) - max(z, 0) is rho / 4 at 0 and less beside it. Logistic: log(2) / L there."""
    z, curves = fig3.surrogate_curves()
    middle = z.index(0.0)
    wanted = {f"quadratic rho={rho:g}": rho / 4 for rho in fig3.RHOS}
    wanted |= {f"logistic L={L:g}": math.log(2) / L for L in fig3.LS}
    for name, distance in wanted.items():
        above = [value - hinge for value, hinge in zip(curves[name], curves["hinge"], strict=True)]
        assert above[middle] == max(above) == pytest.approx(distance, abs=1e-8)
        assert min(above) >= 0.0
    assert [max(each, 0.0) for each in z] == curves["hinge"]


def test_what_the_paper_states_holds_and_would_be_seen_to_fail() -> None:
    _, curves = fig3.surrogate_curves()
    assert [statement.holds for statement in fig3.check(curves)] == [True, True, True]
    swapped = curves | {"logistic L=2": curves["logistic L=10"], "logistic L=10": curves["logistic L=2"]}
    assert [statement.holds for statement in fig3.check(swapped)] == [False, True, True]
    swapped = curves | {"quadratic rho=0.2": curves["quadratic rho=1"]}
    assert [statement.holds for statement in fig3.check(swapped)] == [True, False, True]
    falling = curves | {"quadratic rho=0.5": curves["quadratic rho=0.5"][::-1]}
    assert not fig3.check(falling)[2].holds
