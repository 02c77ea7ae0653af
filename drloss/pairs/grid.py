"""Sums over all pairs in linear time: the sum over positives is a piecewise cubic of one negative's score.

    F(a) = sum over j of l(a + b_j),  a = p of a negative,  b_j = -p of a positive + margin

Cut the axis of scores into cells, on each of which F is a polynomial of x = (a - centre) * scale, of degree 3 at most.
One pass over the negatives sums 1, x, x^2 and x^3 in each cell; the value and the positives' gradients follow from
these four moments. The gradient of a negative, F'(a), is the polynomial of its cell, evaluated in a second pass. The
rest is arithmetic on cells and positives.

**Hinge and quadratic** are exactly of this kind, with cells between knots: see ``Knots``. **Logistic**: F is smooth.
In each cell it is interpolated by a cubic, and the cells are as narrow as the error bound asks for: see ``Nodes``. The
interpolation is local, so it keeps the relative accuracy of the flat tail, which one series over [0, 1] would lose, and
its cost per negative does not grow with L.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from inspect import signature
from math import cos, exp, floor, inf, pi
from typing import NamedTuple

import torch
from torch import Tensor

from drloss.pairs.tiled import tile_sums
from drloss.surrogates import Surrogate, hinge, logistic, quadratic

# Fewer pairs cost less than loading the kernels.
FEW_PAIRS = 2**16
NUM_MOMENTS = 4
# Cells per length of 1 / L.
CELLS_PER_SCALE = 64
# Largest relative error of l' between the four Chebyshev nodes of a cell of half-width h = 1 / (128 L): by Lagrange's
# remainder max|f''''| / 4! * h^4 / 8 for f = l' = sigmoid(L z), where |f''''| <= L^4 f, and f varies by exp(2 L h).
INTERPOLATION_ERROR = (0.5 / CELLS_PER_SCALE) ** 4 / 192 * exp(1.0 / CELLS_PER_SCALE)  # 2e-11
# So many that few scores share a bucket with a knot.
BUCKETS_PER_KNOT = 8
MIN_BUCKETS = 4096


@dataclass(frozen=True)
class Cells:
    """C cells of the score axis, and B equal buckets by which the cell of a score is found in a step or two.

    The number of a score's cell is the number of edges below it. ``first`` holds, for each bucket, the number of edges
    in lower buckets. The few edges in the score's own bucket are compared with the score: rounding cannot misplace it.
    """

    low: float  # no score is lower
    buckets_per_unit: float
    first: Tensor  # [B] int32
    edges: Tensor  # [C] float64, the upper end of each cell, ascending, the last inf
    centres: Tensor  # [C] float64
    scale: float


class PairSums(NamedTuple):
    """Float64 sums over all pairs, not yet divided by their number."""

    total: Tensor  # scalar
    slopes: Tensor  # [C, 4]: F'(a) = sum over k of slopes[cell, k] x^k
    grad_positives: Tensor  # [n+]: by b_j


@dataclass(frozen=True)
class Nodes:
    """The logistic. Up to the interpolation's error, the negatives of a cell are weights at four nodes of the cell."""

    grid: Cells
    positives: Tensor  # [n+] float64, b
    surrogate: Surrogate

    def sums(self, moments: Tensor) -> PairSums:
        """From the moments, [C, 4] float64. Visits 4 C n+ pairs."""
        x = moments.new_tensor([cos((2 * k + 1) * pi / (2 * NUM_MOMENTS)) for k in range(NUM_MOMENTS)])
        powers = x.unsqueeze(1) ** torch.arange(NUM_MOMENTS, device=x.device)
        to_polynomial = torch.linalg.inv(powers)
        nodes = (self.grid.centres.unsqueeze(1) + x / self.grid.scale).flatten()
        weights = (moments @ to_polynomial).flatten()
        sums = tile_sums(nodes, self.positives, self.surrogate, weights=weights)
        return PairSums(sums.total, sums.slopes_a.view(-1, NUM_MOMENTS) @ to_polynomial.T, sums.slopes_b)


@dataclass(frozen=True)
class Knots:
    """Hinge and quadratic: F is a sum of truncated powers, each 0 up to its knot and a polynomial beyond.

    Hinge: (a - knot)^1 with knot = -b. Quadratic, Eq. 7: l(z) = (relu(z + rho)^2 - relu(z - rho)^2) / (4 rho), so two
    truncated squares, with knots -b - rho and -b + rho.
    """

    grid: Cells
    polynomials: Tensor  # [m n+, 4], of each knot in x, lowest power first; knots ascending
    order: Tensor  # [m n+]: the place of each knot before sorting, in the flattened [m, n+]
    num_positives: int

    def sums(self, moments: Tensor) -> PairSums:
        """From the moments, [C, 4] float64. O(C)."""
        no_knot = self.polynomials.new_zeros(1, NUM_MOMENTS)
        beyond = torch.cat([no_knot, self.polynomials.cumsum(0)])
        above = moments.flip(0).cumsum(0).flip(0)[1:]  # of the negatives above each knot
        # A knot moves down as its b grows, so its derivative by b is that of its polynomial by x.
        grad_knots = torch.empty_like(above[:, 0])
        grad_knots[self.order] = (_derivative(self.polynomials) * above).sum(1)
        grad_positives = grad_knots.view(-1, self.num_positives).sum(0)
        return PairSums((beyond * moments).sum(), _derivative(beyond), grad_positives)


def piecewise(surrogate: Surrogate, positives: Tensor, span: tuple[float, float], num_neg: int) -> Nodes | Knots | None:
    """F for ``num_neg`` negatives, all within ``span``, against b of the positives, [n+] float64.

    None where visiting every pair is better: for few pairs, for an unknown surrogate, or for an L so large that the
    cells would have as many nodes (256 L in a span of 1) as there are negatives.
    """
    if num_neg * len(positives) <= FEW_PAIRS:
        return None
    function = surrogate.func if isinstance(surrogate, partial) else surrogate
    if function is hinge:
        return _knots(-positives.unsqueeze(0), positives.new_tensor([1.0]), 1, span)
    if function is quadratic:
        rho = signature(surrogate).parameters["rho"].default
        shifts = positives.new_tensor([-rho, rho])
        return _knots(shifts.unsqueeze(1) - positives, -shifts.sign() / (4.0 * rho), 2, span)
    if function is logistic:
        cells_per_unit = CELLS_PER_SCALE * signature(surrogate).parameters["L"].default
        if NUM_MOMENTS * cells_per_unit * (span[1] - span[0]) < num_neg - NUM_MOMENTS:
            return Nodes(_even_grid(positives, cells_per_unit, *span), positives, surrogate)
    return None


def _even_grid(like: Tensor, cells_per_unit: float, low: float, high: float) -> Cells:
    """Cells of one width, each its own bucket. Rounding may take x just out of [-1, 1]; the cubic holds there too."""
    cells = torch.arange(floor((high - low) * cells_per_unit) + 1, device=like.device)
    edges = low + (cells + 1).double() / cells_per_unit
    edges[-1] = inf
    centres = low + (cells.double() + 0.5) / cells_per_unit
    return Cells(low, cells_per_unit, cells.int(), edges, centres, 2.0 * cells_per_unit)


def _knots(knots: Tensor, factors: Tensor, power: int, span: tuple[float, float]) -> Knots:
    """Cells between the knots of factors[i] * relu(a - knots[i, j])^power. knots: [m, n+]; factors: [m]."""
    num_positives = knots.shape[1]
    factors = factors.unsqueeze(1).expand_as(knots).flatten()
    knots, order = knots.flatten().sort()
    low, high = span
    origin = low + (high - low) / 2
    x = knots - origin  # one origin for all cells, so that moments and polynomials of different cells can be added
    terms = [-x, torch.ones_like(x)] if power == 1 else [x * x, -2.0 * x, torch.ones_like(x)]
    terms += [torch.zeros_like(x)] * (NUM_MOMENTS - len(terms))
    polynomials = torch.stack(terms, dim=1) * factors[order].unsqueeze(1)

    num_buckets = max(MIN_BUCKETS, BUCKETS_PER_KNOT * len(knots))
    buckets_per_unit = num_buckets / (high - low) if high > low else 1.0
    buckets = ((knots - low) * buckets_per_unit).floor_().clamp_(-1, num_buckets - 1)
    first = torch.searchsorted(buckets, torch.arange(num_buckets, device=x.device).double(), out_int32=True)
    edges = torch.cat([knots, knots.new_tensor([inf])])
    grid = Cells(low, buckets_per_unit, first, edges, torch.full_like(edges, origin), 1.0)
    return Knots(grid, polynomials, order, num_positives)


def _derivative(polynomials: Tensor) -> Tensor:
    """[..., 4] -> [..., 4], the last coefficient 0."""
    powers = torch.arange(NUM_MOMENTS, device=polynomials.device)
    return (polynomials * powers).roll(-1, dims=-1)
