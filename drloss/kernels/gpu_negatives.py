"""Triton kernels of the hardest negatives' distribution (Eq. 6): one pass for P-, one for the gradient.

A program sums the weights exp(p_j / lambda) of one tile (5,120 entries for 80 classes) in float32, relative to the
largest of them, so nothing overflows at any lambda. ``combine_negatives`` adds the sums in float64, in a fixed order.

Needs triton. Legend: N images, R anchors, K classes, S sets of images; tiles as in ``gpu_tiles``.
"""

from __future__ import annotations

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
    sigmoid,
)

EXCLUDED: tl.constexpr = tl.constexpr(-1e30)  # finite, so that its weight, 0, times it is 0


@triton.jit
def sum_negatives(
    levels: tl.tuple,
    num_anchors: tl.tuple,
    labels: tl.tensor,
    pos_logits: tl.tensor,
    partials: tl.tensor,
    inverse_lambda: tl.tensor,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """First pass. partials: [3, N, tiles] float32: largest exponent (base 2), sum of weights, sum of weight * p."""
    level, first, anchor, rows = find_tile(num_anchors, ROWS)
    start = pick(levels, level) + first * K
    label = load_labels(labels, anchor, rows, ROWS)
    row = tl.arange(0, ROWS)
    exists = row < rows
    # A label >= K (only the host could refuse it) must not read another anchor's logit.
    pos_logit = tl.load(start + row * K + label, mask=(label >= 0) & (label < K), other=0.0)
    tl.store(pos_logits + anchor + row, pos_logit.to(tl.float32), mask=exists)

    # Above 0, so that the weight of an excluded entry is 0 for lambda = inf too.
    scale = tl.maximum(inverse_lambda * LOG2_E, 1e-24)
    scores = ()
    hardest = tl.zeros([ROWS, WIDTH], tl.float32)
    for piece in tl.static_range((K + WIDTH - 1) // WIDTH):
        column, offsets = piece_of(piece, K, WIDTH, ROWS)
        p = sigmoid(tl.load(start + offsets, mask=entries_of(exists, column, K, WIDTH), other=0.0).to(tl.float32))
        negative = entries_of(label != IGNORED, column, K, WIDTH) & (column != label[:, None])
        p = tl.where(negative, p, EXCLUDED)
        hardest = tl.maximum(hardest, p)
        scores += (p,)  # type: ignore[assignment]  # grows as the loop is unrolled
    largest = tl.max(hardest) * scale
    total, weighted = tl.zeros([ROWS, WIDTH], tl.float32), tl.zeros([ROWS, WIDTH], tl.float32)
    for piece in tl.static_range((K + WIDTH - 1) // WIDTH):
        weight = tl.exp2(scores[piece] * scale - largest)
        total += weight
        weighted += weight * scores[piece]

    num_programs = tl.num_programs(0) * tl.num_programs(1)
    partials += tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    tl.store(partials, largest)
    tl.store(partials + num_programs, tl.sum(total))
    tl.store(partials + 2 * num_programs, tl.sum(weighted))


@triton.jit(do_not_specialize=["num_tiles"])
def combine_negatives(
    partials: tl.tensor,
    set_of_image: tl.tuple,
    num_tiles: tl.tensor,
    expected_neg: tl.tensor,
    log_normalizer: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """Program s adds the partial sums of set s. partials: as ``sum_negatives``; expected_neg, log_normalizer: [S]."""
    num_partials = len(set_of_image) * num_tiles
    largest = tl.zeros([], tl.float32)
    total, weighted = tl.zeros([], tl.float64), tl.zeros([], tl.float64)
    for image in tl.static_range(len(set_of_image)):
        if number(set_of_image, image) == tl.program_id(0):
            for start in range(0, num_tiles, BLOCK):
                tile = start + tl.arange(0, BLOCK)
                here = tile < num_tiles
                partial = partials + image * num_tiles + tile
                exponent = tl.load(partial, mask=here, other=0.0)
                larger = tl.maximum(largest, tl.max(exponent))
                scale, kept = tl.exp2(exponent - larger).to(tl.float64), tl.exp2(largest - larger).to(tl.float64)
                total = total * kept + tl.sum(scale * tl.load(partial + num_partials, mask=here, other=0.0))
                weighted = weighted * kept + tl.sum(scale * tl.load(partial + 2 * num_partials, mask=here, other=0.0))
                largest = larger
    tl.store(expected_neg + tl.program_id(0), weighted / tl.where(total > 0, total, 1.0))
    # log 0 would be a warning in the interpreter.
    log_total = tl.where(total > 0, tl.log(tl.where(total > 0, total, 1.0)), -float("inf"))
    tl.store(log_normalizer + tl.program_id(0), largest.to(tl.float64) / LOG2_E + log_total)


@triton.jit
def write_gradient(
    levels: tl.tuple,
    gradients: tl.tuple,
    num_anchors: tl.tuple,
    labels: tl.tensor,
    set_of_image: tl.tuple,
    expected_neg: tl.tensor,
    log_normalizer: tl.tensor,
    grad_neg: tl.tensor,
    grad_pos: tl.tensor,
    inverse_lambda: tl.tensor,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """Second pass. levels, gradients: of the same shapes; the [S] vectors: float64 and any; grad_pos: [N, R]."""
    level, first, anchor, rows = find_tile(num_anchors, ROWS)
    start, target = pick(levels, level) + first * K, pick(gradients, level) + first * K
    label = load_labels(labels, anchor, rows, ROWS)
    row = tl.arange(0, ROWS)
    exists = row < rows
    of_positive = tl.load(grad_pos + anchor + row, mask=label >= 0, other=0.0).to(tl.float32)
    this_set = number_of_image(set_of_image)
    expected = tl.load(expected_neg + this_set).to(tl.float32)
    exponent_of_normalizer = (tl.load(log_normalizer + this_set) * LOG2_E).to(tl.float32)
    slope = tl.load(grad_neg + this_set).to(tl.float32)
    for piece in tl.static_range((K + WIDTH - 1) // WIDTH):
        column, offsets = piece_of(piece, K, WIDTH, ROWS)
        there = entries_of(exists, column, K, WIDTH)
        p = sigmoid(tl.load(start + offsets, mask=there, other=0.0).to(tl.float32))
        q = tl.exp2(p * (inverse_lambda * LOG2_E) - exponent_of_normalizer)
        gradient = slope * q * (1.0 + (p - expected) * inverse_lambda) * (p * (1.0 - p))
        gradient = tl.where(column == label[:, None], of_positive[:, None], gradient)
        gradient = tl.where(label[:, None] != IGNORED, gradient, 0.0).to(target.dtype.element_ty)
        tl.store(target + offsets, gradient, mask=there)
