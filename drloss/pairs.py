"""The mean of a surrogate over all n+ n- pairs (Eqs. 3 and 4), in memory that does not grow with the product.

Both sets are given as values, p of a negative and -p of a positive: z = p_neg - p_pos + margin is then a sum.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from drloss.surrogates import Surrogate, hinge

# Pairs held at a time. On a CPU a tile and its few temporaries stay in the cache; a GPU needs large ones to be busy.
TILE_PAIRS_CPU = 2**18
TILE_PAIRS_GPU = 2**25


def pair_mean(negatives: Tensor, positives: Tensor, *, margin: float, surrogate: Surrogate) -> Tensor:
    """E_{j+, j-}[l(p_neg - p_pos + margin)], Eq. 4, as a float64 scalar.

    negatives: [n-], p of each; positives: [n+], -p of each; both of one dtype and not empty.
    The hinge costs O((n- + n+) log n+); any other surrogate visits every pair, tile by tile.
    """
    if surrogate is hinge:
        return _hinge_mean(negatives, positives, margin)
    mean: Tensor = _TiledMean.apply(negatives, positives + margin, surrogate)
    return mean


def _hinge_mean(negatives: Tensor, positives: Tensor, margin: float) -> Tensor:
    """Eq. 4 with the hinge, by sorting.

    A pair costs p_neg - knot where p_neg > knot = p_pos - margin, else 0. Given who is above whom the sum is
    linear: sum_i p_i * (knots below p_i) - sum_j knot_j * (negatives above knot_j). The counts are piecewise
    constant, so autograd's gradient of this form is the hinge's.
    """
    # In float64: the two sums nearly cancel when few pairs are active.
    negatives = negatives.double()
    knots = (-positives.double() - margin).sort().values
    with torch.no_grad():
        knots_below = torch.searchsorted(knots, negatives)
        histogram = torch.bincount(knots_below, minlength=len(knots) + 1)
        negatives_above = histogram.flip(0).cumsum(0).flip(0)[1:]
    total = (negatives * knots_below).sum() - (knots * negatives_above).sum()
    return total / (len(negatives) * len(knots))


class _TiledMean(torch.autograd.Function):
    """Mean of surrogate(a_i + b_j) over all pairs; the forward pass also sums the gradients, so nothing is redone."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, surrogate: Surrogate) -> Tensor:
        """a: [n], b: [m] -> float64 scalar. Sums are float32 within a tile and float64 across tiles."""
        wants_grad = any(ctx.needs_input_grad)
        total = a.new_zeros((), dtype=torch.float64)
        grad_a, grad_b = (torch.zeros_like(x, dtype=torch.float64) for x in ((a, b) if wants_grad else (a[:0], b[:0])))
        tile = TILE_PAIRS_CPU if a.device.type == "cpu" else TILE_PAIRS_GPU
        rows = min(len(b), max(1, int(tile**0.5)))
        columns = max(1, tile // rows)
        for i in range(0, len(a), columns):
            for j in range(0, len(b), rows):
                z = b[j : j + rows, None] + a[i : i + columns]
                if not wants_grad:
                    total += surrogate(z).sum()
                    continue
                value, slope = _value_and_slope(z, surrogate)
                total += value
                grad_a[i : i + columns] += slope.sum(dim=0)
                grad_b[j : j + rows] += slope.sum(dim=1)
        num_pairs = len(a) * len(b)
        if wants_grad:
            ctx.save_for_backward((grad_a / num_pairs).to(a.dtype), (grad_b / num_pairs).to(b.dtype))
        return total / num_pairs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """Scales the gradients that the forward pass has summed."""
        grad_a, grad_b = ctx.saved_tensors
        return grad.to(grad_a.dtype) * grad_a, grad.to(grad_b.dtype) * grad_b, None


def _value_and_slope(z: Tensor, surrogate: Surrogate) -> tuple[Tensor, Tensor]:
    """sum of l(z) over a tile, and l'(z) of z's shape."""
    with torch.enable_grad():
        value = surrogate(z.requires_grad_()).sum()
        (slope,) = torch.autograd.grad(value, z)
    return value.detach(), slope
