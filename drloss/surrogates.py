"""Surrogates of the 0-1 ranking error of a pair: the hinge and its two smooth variants (section 3.2).

Each maps z = p_neg - p_pos + margin, of any shape, element by element, and is zero (or vanishes) for z -> -inf. Values
and gradients are finite for every finite z; the gradient is 0 at -inf.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from drloss.checks import require_choice, require_positive

Surrogate: TypeAlias = Callable[[Tensor], Tensor]
SurrogateName: TypeAlias = Literal["logistic", "quadratic", "hinge"]
DEFAULT_L, DEFAULT_RHO = 6.0, 0.5


def hinge(z: Tensor) -> Tensor:
    """max(z, 0), section 3.1; the subgradient at 0 is 0. z: [...] -> [...]."""
    _require_floats(z)
    return F.relu(z)


def quadratic(z: Tensor, rho: float = DEFAULT_RHO) -> Tensor:
    """Hinge with its corner rounded on (-rho, rho), Eq. 7. z: [...] -> [...].

    z for z >= rho, (z + rho)^2 / (4 rho) for -rho < z < rho, 0 for z <= -rho; rho > 0.
    """
    _require_floats(z)
    # With x = max(z + rho, 0) this is smooth L1 that changes at 2 rho: x^2 / (4 rho) below, x - rho above.
    x = F.relu(z + rho)
    return F.smooth_l1_loss(x, torch.zeros_like(x), reduction="none", beta=2.0 * rho)


def logistic(z: Tensor, L: float = DEFAULT_L) -> Tensor:
    """Smooth hinge, Eq. 8: log(1 + exp(L z)) / L, L > 0. z: [...] -> [...]."""
    _require_floats(z)
    # Above 40, log(1 + exp(x)) is x to the last bit of a float64. torch's default, 20, is exact to float32 only.
    return F.softplus(z, beta=L, threshold=40.0)


def _require_floats(z: object) -> None:
    """Raises TypeError for what is no tensor of floating point."""
    if not isinstance(z, Tensor) or not z.is_floating_point():
        what = str(z.dtype) if isinstance(z, Tensor) else type(z).__name__
        raise TypeError(f"z is {what}. Expected: a torch tensor of floating point.")


def make_surrogate(name: SurrogateName, *, L: float = DEFAULT_L, rho: float = DEFAULT_RHO) -> Surrogate:
    """The surrogate called ``name`` with its parameter bound (``L`` of the logistic, ``rho`` of the quadratic).

    Raises:
        ValueError: unknown name, or ``L`` or ``rho`` not a positive finite number, used by this surrogate or not.
    """
    require_choice("surrogate", name, ("logistic", "quadratic", "hinge"))
    require_positive("L", L)
    require_positive("rho", rho)
    if name == "hinge":
        return hinge
    return partial(logistic, L=L) if name == "logistic" else partial(quadratic, rho=rho)


class Form(NamedTuple):
    """A surrogate as data. parameter: ``L`` of the logistic, ``rho`` of the quadratic, 0 of the hinge."""

    name: SurrogateName
    parameter: float


def form_of(surrogate: Surrogate) -> Form | None:
    """What ``surrogate`` computes: one of this file's functions, or a partial of one that binds a number by name.

    None for any other callable, and for a parameter that is no number > 0 (a tensor, say, which can have a gradient).
    """
    function, given = surrogate, {}
    if isinstance(surrogate, partial):
        function, given = surrogate.func, dict(surrogate.keywords)
        if surrogate.args:
            return None
    if function is hinge:
        return None if given else Form("hinge", 0.0)
    if function is logistic:
        found = Form("logistic", given.pop("L", DEFAULT_L))
    elif function is quadratic:
        found = Form("quadratic", given.pop("rho", DEFAULT_RHO))
    else:
        return None
    usable = not given and isinstance(found.parameter, (int, float)) and 0 < found.parameter < math.inf
    return Form(found.name, float(found.parameter)) if usable else None
