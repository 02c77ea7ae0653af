"""Triton kernels of all pairs, for the logistic: the sum over positives as a cubic on each of many narrow cells.

See ``pairs.grid``, Nodes: the cells are even, 64 per 1 / L. Here the cubic of a cell is found from its values at four
Chebyshev points, and its moments, the sums of 1, x, x^2, x^3 over a cell's negatives, are sums of integers.

Needs triton. Legend: as in ``gpu_passes``; C cells.
"""

from __future__ import annotations

from math import cos, pi
from typing import Any

import triton
import triton.language as tl

from drloss.kernels.gpu_tiles import IGNORED, entries_of, find_tile, load_labels, pick, piece_of, sigmoid
from drloss.pairs.gpu_passes import add_at, exact, exact_sigmoid

OUTER: tl.constexpr = tl.constexpr(cos(pi / 8))
INNER: tl.constexpr = tl.constexpr(cos(3 * pi / 8))
FIXED_POINT: tl.constexpr = tl.constexpr(2.0**31)


@triton.jit
def _constant(value: tl.constexpr) -> Any:
    return tl.full([], value, tl.float64)


@triton.jit
def _softplus(z: tl.tensor) -> Any:
    """log(1 + e^z) in float64, to the last digits of a small one too."""
    tail = tl.exp(-tl.abs(z))
    near = 1.0 + tail
    digits = tl.where(near == 1.0, 1.0, near - 1.0)
    return tl.maximum(z, 0.0) + tl.where(near == 1.0, tail, tl.log(near) * (tail / digits))


@triton.jit
def _cubic(outer: tl.tensor, inner: tl.tensor, minus_inner: tl.tensor, minus_outer: tl.tensor) -> Any:
    """The coefficients, lowest power first, of the cubic with these values at OUTER, INNER, -INNER and -OUTER."""
    square = _constant(OUTER * OUTER)
    difference = _constant(OUTER * OUTER - INNER * INNER)
    even, even_inner = (outer + minus_outer) * 0.5, (inner + minus_inner) * 0.5
    odd, odd_inner = (outer - minus_outer) / _constant(2 * OUTER), (inner - minus_inner) / _constant(2 * INNER)
    second, third = (even - even_inner) / difference, (odd - odd_inner) / difference
    return even - second * square, odd - third * square, second, third


@triton.jit
def _cell_of(a: tl.tensor, cells_per_unit: tl.tensor, num_cells: tl.tensor) -> Any:
    """The cell of each score, and x, its place there in [-1, 1]. NaN is in cell 0, at x = -1."""
    place = tl.where(a == a, a, 0.0) * cells_per_unit
    cell = tl.minimum(place.to(tl.int32), num_cells - 1)
    return cell, 2.0 * (place - cell.to(tl.float64)) - 1.0


@triton.jit(do_not_specialize=["num_cells", "size"])
def tabulate(
    knots: tl.tensor,
    numbers: tl.tensor,
    cubics: tl.tensor,
    L_high: tl.tensor,
    L_low: tl.tensor,
    cells_per_scale: tl.tensor,
    num_cells: tl.tensor,
    size: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """The sum over the knots, as a cubic of x in each cell, and its derivative by a. cubics: [2, S, C, 4] float64."""
    this_set = tl.program_id(1)
    L = exact(L_high, L_low)
    cells_per_unit = L * cells_per_scale
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    knots += this_set.to(tl.int64) * size
    num = tl.load(numbers + this_set * 4 + 2)
    values, slopes = (), ()
    for node in tl.static_range(4):
        x = _constant(OUTER if node == 0 else (INNER if node == 1 else (-INNER if node == 2 else -OUTER)))
        a = (cell.to(tl.float64) + (0.5 + 0.5 * x)) / cells_per_unit
        value, slope = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
        for start in range(0, num, BLOCK):
            place = start + tl.arange(0, BLOCK)
            there = place < num
            z = (a[:, None] - tl.load(knots + place, mask=there, other=0.0)[None, :]) * L
            value += tl.sum(tl.where(there[None, :], _softplus(z), 0.0), axis=1) / L
            slope += tl.sum(tl.where(there[None, :], exact_sigmoid(z), 0.0), axis=1)
        values += (value,)  # type: ignore[assignment]  # grows as the loop is unrolled
        slopes += (slope,)  # type: ignore[assignment]
    here = cell < num_cells
    cubics += (this_set.to(tl.int64) * num_cells + cell) * 4
    derivatives = cubics + tl.num_programs(1).to(tl.int64) * num_cells * 4
    of_values = _cubic(values[0], values[1], values[2], values[3])  # type: ignore[misc]
    of_slopes = _cubic(slopes[0], slopes[1], slopes[2], slopes[3])  # type: ignore[misc]
    for power in tl.static_range(4):
        tl.store(cubics + power, of_values[power], mask=here)
        tl.store(derivatives + power, of_slopes[power], mask=here)


@triton.jit(do_not_specialize=["images_per_set", "num_sets", "num_cells"])
def sum_moments(
    levels: tl.tuple,
    num_anchors: tl.tuple,
    labels: tl.tensor,
    moments: tl.tensor,
    partials: tl.tensor,
    L_high: tl.tensor,
    L_low: tl.tensor,
    cells_per_scale: tl.tensor,
    images_per_set: tl.tensor,
    num_sets: tl.tensor,
    num_cells: tl.tensor,
    COPIES: tl.constexpr,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """First pass. moments: [COPIES, S, C, 4] int64, zeros before, to be added up; partials: [N, tiles], NaN or 0.

    The programs share the copies out, so that they seldom add to one number at once.
    """
    level, first, anchor, rows = find_tile(num_anchors, ROWS)
    start = pick(levels, level) + first * K
    label = load_labels(labels, anchor, rows, ROWS)
    this_set = (tl.program_id(1) // images_per_set).to(tl.int64)
    cells_per_unit = exact(L_high, L_low) * cells_per_scale
    moments += ((tl.program_id(0) % COPIES) * num_sets + this_set) * num_cells * 4
    poison = tl.zeros([ROWS, WIDTH], tl.float32)
    for piece in range((K + WIDTH - 1) // WIDTH):
        column, offsets = piece_of(piece, K, WIDTH, ROWS)
        there = entries_of(label != IGNORED, column, K, WIDTH)
        p = sigmoid(tl.load(start + offsets, mask=there, other=0.0).to(tl.float32))
        counts = there & (column != label[:, None])
        cell, x = _cell_of(p.to(tl.float64), cells_per_unit, num_cells)
        poison += tl.where(counts & (p != p), p, 0.0)
        powers = ()
        power = tl.full([ROWS, WIDTH], FIXED_POINT, tl.float64)
        for _ in tl.static_range(3):
            power = power * x
            powers += (tl.floor(power + 0.5).to(tl.int64),)  # type: ignore[assignment]
        add_at(moments, cell, counts, powers, offsets)
    tl.store(partials + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0), tl.sum(poison).to(tl.float64))


@triton.jit
def _moments_of(
    moments: tl.tensor,
    cell: tl.tensor,
    here: tl.tensor,
    power: tl.constexpr,
    stride: tl.tensor,
    is_empty: tl.tensor,
    COPIES: tl.constexpr,
) -> Any:
    """The sum of x^power in each cell, float64. A set without negatives has one, with p = 0."""
    total = cell.to(tl.int64) * 0
    for copy in tl.static_range(COPIES):
        total += tl.load(moments + copy * stride + cell * 4 + power, mask=here, other=0)
    scale = 1.0 if power == 0 else FIXED_POINT
    of_empty = tl.where(cell == 0, 1.0 if power % 2 == 0 else -1.0, 0.0)
    return tl.where(is_empty, of_empty, total.to(tl.float64) / scale)


@triton.jit(do_not_specialize=["images_per_set", "num_images", "num_tiles", "num_cells", "size"])
def combine_logistic(
    knots: tl.tensor,
    order: tl.tensor,
    numbers: tl.tensor,
    cubics: tl.tensor,
    moments: tl.tensor,
    partials: tl.tensor,
    means: tl.tensor,
    grad_pos: tl.tensor,
    margin_high: tl.tensor,
    margin_low: tl.tensor,
    L_high: tl.tensor,
    L_low: tl.tensor,
    cells_per_scale: tl.tensor,
    images_per_set: tl.tensor,
    num_images: tl.tensor,
    num_tiles: tl.tensor,
    num_cells: tl.tensor,
    size: tl.tensor,
    COPIES: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Program (b, s): the gradient of the mean by the logits of a block of positives; the first, the mean of set s.

    means: [S] float64; grad_pos, order: as in ``gpu_passes.combine_pairs``.
    """
    this_set = tl.program_id(1)
    num_neg, num = tl.load(numbers + this_set * 4), tl.load(numbers + this_set * 4 + 2)
    num_pairs = tl.maximum(num_neg, 1).to(tl.float64) * num.to(tl.float64)
    stride = tl.num_programs(1).to(tl.int64) * num_cells * 4
    L = exact(L_high, L_low)
    cells_per_unit = L * cells_per_scale
    knots += this_set.to(tl.int64) * size
    cubics += this_set.to(tl.int64) * num_cells * 4
    moments += this_set.to(tl.int64) * num_cells * 4
    if tl.program_id(0) * BLOCK < num:
        place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        knot = tl.load(knots + place, mask=place < num, other=0.0)
        slope, total = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
        for start in range(0, num_cells, BLOCK):
            cell = start + tl.arange(0, BLOCK)
            here = cell < num_cells
            at_nodes = ()
            for node in tl.static_range(4):
                x = _constant(OUTER if node == 0 else (INNER if node == 1 else (-INNER if node == 2 else -OUTER)))
                a = (cell.to(tl.float64) + (0.5 + 0.5 * x)) / cells_per_unit
                at_nodes += (exact_sigmoid((a[None, :] - knot[:, None]) * L),)  # type: ignore[assignment]
            of_cells = _cubic(at_nodes[0], at_nodes[1], at_nodes[2], at_nodes[3])  # type: ignore[misc]
            for power in tl.static_range(4):
                moment = _moments_of(moments, cell, here, power, stride, num_neg == 0, COPIES)
                slope += tl.sum(of_cells[power] * moment[None, :], axis=1)
                if tl.program_id(0) == 0:
                    total += moment * tl.load(cubics + cell * 4 + power, mask=here, other=0.0)
        p = knot + exact(margin_high, margin_low)
        first = this_set.to(tl.int64) * size
        target = tl.load(order + first + place, mask=place < num, other=0)
        tl.store(grad_pos + first + target, -slope / num_pairs * p * (1.0 - p), mask=place < num)
        if tl.program_id(0) == 0:
            mean = tl.sum(total) / num_pairs
            first_tile = this_set * images_per_set * num_tiles
            tiles = tl.minimum(num_images - this_set * images_per_set, images_per_set) * num_tiles
            for start in range(0, tiles, BLOCK):
                tile = start + tl.arange(0, BLOCK)
                mean += tl.sum(tl.load(partials + first_tile + tile, mask=tile < tiles, other=0.0))
            is_nan = tl.load(knots) == -float("inf")
            tl.store(means + this_set, tl.where(is_nan, float("nan"), mean))


@triton.jit(do_not_specialize=["images_per_set", "num_cells"])
def write_logistic_gradient(
    levels: tl.tuple,
    gradients: tl.tuple,
    num_anchors: tl.tuple,
    labels: tl.tensor,
    numbers: tl.tensor,
    derivatives: tl.tensor,
    grad_pos: tl.tensor,
    slopes: tl.tensor,
    L_high: tl.tensor,
    L_low: tl.tensor,
    cells_per_scale: tl.tensor,
    images_per_set: tl.tensor,
    num_cells: tl.tensor,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """Second pass. derivatives: [S, C, 4], the second half of ``tabulate``'s; the rest as ``write_pairs_gradient``."""
    level, first, anchor, rows = find_tile(num_anchors, ROWS)
    start, target = pick(levels, level) + first * K, pick(gradients, level) + first * K
    label = load_labels(labels, anchor, rows, ROWS)
    row = tl.arange(0, ROWS)
    this_set = (tl.program_id(1) // images_per_set).to(tl.int64)
    num_neg, num = tl.load(numbers + this_set * 4), tl.load(numbers + this_set * 4 + 2)
    slope = tl.load(slopes + this_set)
    of_positive = (tl.load(grad_pos + anchor + row, mask=label >= 0, other=0.0) * slope).to(tl.float32)
    scale = slope / (tl.maximum(num_neg, 1).to(tl.float64) * num.to(tl.float64))
    cells_per_unit = exact(L_high, L_low) * cells_per_scale
    derivatives += this_set * num_cells * 4
    for piece in tl.static_range((K + WIDTH - 1) // WIDTH):
        column, offsets = piece_of(piece, K, WIDTH, ROWS)
        there = entries_of(row < rows, column, K, WIDTH)
        p = sigmoid(tl.load(start + offsets, mask=there, other=0.0).to(tl.float32))
        cell, x = _cell_of(p.to(tl.float64), cells_per_unit, num_cells)
        by_score = tl.load(derivatives + cell * 4 + 3)
        for power in tl.static_range(3):
            by_score = by_score * x + tl.load(derivatives + cell * 4 + (2 - power))
        gradient = (by_score * scale).to(tl.float32) * (p * (1.0 - p))
        gradient = tl.where(label[:, None] != IGNORED, gradient, 0.0)
        gradient = tl.where((column == label[:, None]) & (label[:, None] >= 0), of_positive[:, None], gradient)
        tl.store(target + offsets, gradient.to(target.dtype.element_ty), mask=there)
