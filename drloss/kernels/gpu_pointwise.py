"""Triton kernels of the losses that judge each entry alone: alpha_t (1 - p_t)^gamma (-log p_t), summed by group.

Cross entropy is alpha_t = 1 and gamma = 0. With z the logit of 1 - p_t (-x for a positive entry, x for a negative),
1 - p_t = sigmoid(z) and -log p_t = softplus(z).

Needs triton. Legend: N images, R anchors, K classes; tiles as in ``gpu_tiles``.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from drloss.kernels.gpu_tiles import (
    IGNORED,
    LOG2_E,
    entries_of,
    find_tile,
    load_labels,
    number,
    number_of_image,
    pick,
    piece_of,
    reciprocal,
)


@triton.jit
def _log1p(x: tl.tensor) -> Any:
    """log(1 + x) for x in [0, 1], to 2e-7 of itself: x times a polynomial of degree 8, fitted at Chebyshev's points.

    log of the sum 1 + x would lose the digits of a small x, and the library's log1p takes five times the instructions.
    """
    value = 0.0052534578 * x - 0.0295885074
    value = value * x + 0.078361668
    value = value * x - 0.136747697
    value = value * x + 0.191114311
    value = value * x - 0.248443699
    value = value * x + 0.333192713
    value = value * x - 0.499995015
    return (value * x + 0.999999971) * x


@triton.jit
def _wrongness(z: tl.tensor, gamma: tl.tensor, GAMMA: tl.constexpr) -> Any:
    """sigmoid(z), 1 - sigmoid(z), softplus(z) and sigmoid(z)^gamma, accurate for any z."""
    tail = tl.exp2(tl.abs(z) * -LOG2_E)
    near = reciprocal(1.0 + tail)
    far = tail * near
    log1p_tail = _log1p(tail)
    wrong, right = tl.where(z > 0, near, far), tl.where(z > 0, far, near)
    if GAMMA == "zero":
        power = tl.full(z.shape, 1.0, tl.float32)
    elif GAMMA == "two":
        power = wrong * wrong
    else:
        power = tl.exp2((tl.minimum(z, 0.0) - log1p_tail) * (gamma * LOG2_E))
    return wrong, right, tl.maximum(z, 0.0) + log1p_tail, power


@triton.jit
def sum_pointwise(
    levels: tl.tuple,
    num_anchors: tl.tuple,
    labels: tl.tensor,
    partials: tl.tensor,
    alpha_pos: tl.tensor,
    alpha_neg: tl.tensor,
    gamma: tl.tensor,
    GAMMA: tl.constexpr,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """The sum of each tile. partials: [N, tiles] float32."""
    level, first, anchor, rows = find_tile(num_anchors, ROWS)
    start = pick(levels, level) + first * K
    label = load_labels(labels, anchor, rows, ROWS)
    exists = tl.arange(0, ROWS) < rows
    total = tl.zeros([ROWS, WIDTH], tl.float32)
    for piece in tl.static_range((K + WIDTH - 1) // WIDTH):
        column, offsets = piece_of(piece, K, WIDTH, ROWS)
        there = entries_of(exists, column, K, WIDTH)
        x = tl.load(start + offsets, mask=there, other=0.0).to(tl.float32)
        positive = column == label[:, None]
        _, _, loss, power = _wrongness(tl.where(positive, -x, x), gamma, GAMMA)
        loss *= power * tl.where(positive, alpha_pos, alpha_neg)
        total += tl.where(there & (label[:, None] != IGNORED), loss, 0.0)
    tl.store(partials + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0), tl.sum(total))


@triton.jit(do_not_specialize=["num_tiles"])
def combine_sums(
    partials: tl.tensor, group_of_image: tl.tuple, num_tiles: tl.tensor, sums: tl.tensor, BLOCK: tl.constexpr
) -> None:
    """Program g adds the partial sums of group g in float64, in a fixed order. partials: [N, tiles]; sums: [groups]."""
    total = tl.zeros([], tl.float64)
    for image in tl.static_range(len(group_of_image)):
        if number(group_of_image, image) == tl.program_id(0):
            for start in range(0, num_tiles, BLOCK):
                tile = start + tl.arange(0, BLOCK)
                partial = tl.load(partials + image * num_tiles + tile, mask=tile < num_tiles, other=0.0)
                total += tl.sum(partial.to(tl.float64))
    tl.store(sums + tl.program_id(0), total)


@triton.jit
def write_pointwise_gradient(
    levels: tl.tuple,
    gradients: tl.tuple,
    num_anchors: tl.tuple,
    labels: tl.tensor,
    group_of_image: tl.tuple,
    scale: tl.tensor,
    alpha_pos: tl.tensor,
    alpha_neg: tl.tensor,
    gamma: tl.tensor,
    GAMMA: tl.constexpr,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """Gradient of each entry: scale alpha_t wrong^gamma (gamma right softplus + wrong), negated for a positive one."""
    level, first, anchor, rows = find_tile(num_anchors, ROWS)
    start, target = pick(levels, level) + first * K, pick(gradients, level) + first * K
    label = load_labels(labels, anchor, rows, ROWS)
    exists = tl.arange(0, ROWS) < rows
    of_group = tl.load(scale + number_of_image(group_of_image)).to(tl.float32)
    for piece in tl.static_range((K + WIDTH - 1) // WIDTH):
        column, offsets = piece_of(piece, K, WIDTH, ROWS)
        there = entries_of(exists, column, K, WIDTH)
        x = tl.load(start + offsets, mask=there, other=0.0).to(tl.float32)
        positive = column == label[:, None]
        wrong, right, loss, power = _wrongness(tl.where(positive, -x, x), gamma, GAMMA)
        gradient = power * (gamma * right * loss + wrong) * tl.where(positive, -alpha_pos, alpha_neg) * of_group
        gradient = tl.where(label[:, None] != IGNORED, gradient, 0.0).to(target.dtype.element_ty)
        tl.store(target + offsets, gradient, mask=there)
