"""Sums of l(a_i + b_j) pair by pair, in tiles: for any surrogate, and where there are few pairs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from drloss.surrogates import Surrogate

# Pairs held at a time. On a CPU a tile and its temporaries fit in the cache; a GPU needs large tiles to be busy.
TILE_PAIRS_CPU = 2**18
TILE_PAIRS_GPU = 2**25


class TileSums(NamedTuple):
    """Float64 sums over all pairs; without slopes these are empty."""

    total: Tensor  # scalar: sum of w_i l(a_i + b_j)
    slopes_a: Tensor  # [n]: sum over j of l'(a_i + b_j)
    slopes_b: Tensor  # [m]: sum over i of w_i l'(a_i + b_j)


def tile_sums(
    a: Tensor, b: Tensor, surrogate: Surrogate, *, weights: Tensor | None = None, slopes: bool = True
) -> TileSums:
    """a, weights (w, 1 where None): [n]; b: [m]. In the dtype of ``a`` within a tile, float64 across tiles."""
    total = a.new_zeros((), dtype=torch.float64)
    slopes_a, slopes_b = (torch.zeros_like(x, dtype=torch.float64) for x in ((a, b) if slopes else (a[:0], b[:0])))
    tile = TILE_PAIRS_CPU if a.device.type == "cpu" else TILE_PAIRS_GPU
    rows = min(len(b), max(1, int(tile**0.5)))
    columns = max(1, tile // rows)
    for i in range(0, len(a), columns):
        some = None if weights is None else weights[i : i + columns]
        for j in range(0, len(b), rows):
            z = b[j : j + rows, None] + a[i : i + columns]
            value, slope = _value_and_slope(z, surrogate) if slopes else (surrogate(z), None)
            total += value.sum() if some is None else (value @ some).sum()
            if slope is not None:
                slopes_a[i : i + columns] += slope.sum(dim=0)
                slopes_b[j : j + rows] += slope.sum(dim=1) if some is None else slope @ some
    return TileSums(total, slopes_a, slopes_b)


class TiledMean(torch.autograd.Function):
    """Mean of surrogate(a_i + b_j) over all pairs. The forward pass sums the gradients too: one visit per pair."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, surrogate: Surrogate) -> Tensor:
        """a: [n], b: [m], of one dtype -> float64 scalar."""
        num_pairs = len(a) * len(b)
        sums = tile_sums(a, b, surrogate, slopes=any(ctx.needs_input_grad))
        ctx.save_for_backward((sums.slopes_a / num_pairs).to(a.dtype), (sums.slopes_b / num_pairs).to(b.dtype))
        return sums.total / num_pairs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """Scales the gradients that the forward pass has summed."""
        slopes_a, slopes_b = ctx.saved_tensors
        return grad.to(slopes_a.dtype) * slopes_a, grad.to(slopes_b.dtype) * slopes_b, None


def _value_and_slope(z: Tensor, surrogate: Surrogate) -> tuple[Tensor, Tensor]:
    """l(z) and l'(z), both of z's shape."""
    with torch.enable_grad():
        value = surrogate(z.requires_grad_())
        (slope,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), slope
