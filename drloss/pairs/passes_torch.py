"""The two passes over the negatives in torch's own operations, on any device; ``passes_cpu`` is faster."""

from __future__ import annotations

import torch
from torch import Tensor

from drloss.pairs.grid import NUM_MOMENTS, Cells

CHUNK = 2**22
# Sums of integers do not depend on the order in which a GPU adds them. A chunk's sum of powers of x in [-1, 1] fits in
# 64 bits.
FIXED_POINT = 2.0**40


def moments(values: Tensor, grid: Cells) -> Tensor:
    """Sums of 1, x, x^2, x^3 over the values in each cell, [C, 4] float64. values: [n], float32 or float64."""
    result = grid.edges.new_zeros(len(grid.edges), NUM_MOMENTS)
    for chunk in torch.split(values.detach(), CHUNK):
        cell, x = _located(chunk, grid)
        reach = x.abs().amax().clamp(min=torch.finfo(torch.float64).tiny)
        term = torch.full_like(x, FIXED_POINT)
        for power in range(NUM_MOMENTS):
            sums = torch.zeros(len(grid.edges), dtype=torch.int64, device=x.device)
            sums.index_add_(0, cell, term.round().long())
            result[:, power] += sums.double() * (reach**power / FIXED_POINT)
            term *= x / reach
    return result


def polynomials(values: Tensor, grid: Cells, coefficients: Tensor) -> Tensor:
    """The cubic of each value's cell at its x; shape and dtype of ``values`` [n]. coefficients: [C, 4] float64."""
    result = torch.empty_like(values)
    for chunk, out in zip(torch.split(values.detach(), CHUNK), torch.split(result, CHUNK), strict=True):
        cell, x = _located(chunk, grid)
        cubic = coefficients[cell, NUM_MOMENTS - 1]
        for power in reversed(range(NUM_MOMENTS - 1)):
            cubic = cubic * x + coefficients[cell, power]
        out.copy_(cubic)
    return result


def _located(values: Tensor, grid: Cells) -> tuple[Tensor, Tensor]:
    """The cell of each value, int64, and its x there, float64."""
    values = values.double()
    cell = torch.searchsorted(grid.edges, values)
    return cell, (values - grid.centres[cell]) * grid.scale
