"""The mean of a surrogate over all n+ n- pairs (Eqs. 3 and 4), in time and memory that grow with n+ + n-.

Both sets are given as values, p of a negative and -p of a positive: z = p_neg - p_pos + margin is then a sum.
"""

from __future__ import annotations

from importlib.util import find_spec
from math import isfinite
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from drloss.pairs import passes_torch
from drloss.pairs.grid import Knots, Nodes, piecewise
from drloss.pairs.tiled import TiledMean
from drloss.surrogates import Surrogate


def pair_mean(negatives: Tensor, positives: Tensor, *, margin: float, surrogate: Surrogate) -> Tensor:
    """E_{j+, j-}[l(p_neg - p_pos + margin)], Eq. 4, as a float64 scalar.

    negatives: [n-], p of each; positives: [n+], -p of each; not empty, any values.
    Linear in n- + n+ for the three surrogates of this package (``grid``); any other visits every pair.
    """
    b = positives.double() + margin
    low, high, sum_b = torch.stack([*torch.aminmax(negatives.detach()), b.detach().sum()]).tolist()
    # A NaN or infinite score has no cell; pair by pair, the surrogate decides what becomes of it.
    is_finite = isfinite(high - low) and isfinite(sum_b)
    form = piecewise(surrogate, b.detach(), (low, high), len(negatives)) if is_finite else None
    mean: Tensor
    if form is None:
        mean = TiledMean.apply(negatives.double(), b, surrogate)
    else:
        mean = _PiecewiseMean.apply(negatives, b, form)
    return mean


class _PiecewiseMean(torch.autograd.Function):
    """The mean over all pairs from the moments of the negatives; their gradients are computed in the backward pass."""

    @staticmethod
    def forward(ctx: Any, negatives: Tensor, b: Tensor, form: Nodes | Knots) -> Tensor:
        """negatives: [n-]; b: [n+] float64, the one that ``form`` was made of -> float64 scalar."""
        sums = form.sums(_passes(negatives).moments(negatives, form.grid))
        ctx.grid, ctx.num_pairs = form.grid, len(negatives) * len(b)
        ctx.save_for_backward(negatives, sums.slopes, sums.grad_positives)
        mean: Tensor = sums.total / ctx.num_pairs
        return mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        """One pass over the negatives."""
        negatives, slopes, grad_positives = ctx.saved_tensors
        scale = grad / ctx.num_pairs
        grad_negatives = None
        if ctx.needs_input_grad[0]:
            grad_negatives = _passes(negatives).polynomials(negatives, ctx.grid, slopes * scale)
        return grad_negatives, grad_positives * scale, None


def _passes(values: Tensor) -> Any:
    """The module that runs the two passes: compiled on a CPU with numba, else in torch."""
    if values.device.type != "cpu" or find_spec("numba") is None:
        return passes_torch
    from drloss.pairs import passes_cpu  # numba is slow to import

    return passes_cpu
