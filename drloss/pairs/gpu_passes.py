"""Triton kernels of all pairs, for hinge and quadratic: exact sums over sorted positives, in linear time.

With t_j = p_j - margin of the positives, ascending, and c the number of t below a negative's score a, the sum of hinges
is c a - (t_1 + .. + t_c). The quadratic (Eq. 7) is the difference of two such sums of squares, at a + rho and a - rho.
So a negative needs the place of its score among the t, a binary search, and sums of t up to there. The gradient by t_j
needs the number of negatives above it, for the quadratic their sum of scores too: these are added by place, as
integers, whose sum does not depend on the order. Where many scores have one place, they are added up first.

Needs triton. Legend: N images, R anchors, K classes, S sets of ``images_per_set`` consecutive images (the last may have
fewer), M = images_per_set * R; tiles as in ``kernels.gpu_tiles``.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from drloss.kernels.gpu_tiles import IGNORED, entries_of, find_tile, load_labels, pick, piece_of, sigmoid

# Scores are at most 1, so that 2^31 of them fit in 64 bits.
FIXED_POINT: tl.constexpr = tl.constexpr(2.0**32)
ROUNDS: tl.constexpr = tl.constexpr(4)


@triton.jit
def exact(high: tl.tensor, low: tl.tensor) -> Any:
    """The float64 that came as a sum of two float32."""
    return tl.zeros([], tl.float64) + high + low


@triton.jit
def wide(number: tl.tensor) -> Any:
    """An argument as int64: products of sizes exceed 2^31."""
    return tl.zeros([], tl.int64) + number


@triton.jit
def exact_sigmoid(x: tl.tensor) -> Any:
    """1 / (1 + e^-x) in float64."""
    tail = tl.exp(-tl.abs(x.to(tl.float64)))
    return tl.where(x > 0, 1.0, tail) / (1.0 + tail)


@triton.jit
def scores_of_positives(
    levels: tl.tuple,
    num_anchors: tl.tuple,
    labels: tl.tensor,
    scores: tl.tensor,
    sizes: tl.tensor,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """scores: [N, R] float64, p of each anchor's own class, inf where there is none and -inf for NaN, so that a sort
    brings all positives to the front. sizes: [2, N, tiles] int32, negatives and positives of each tile.
    """
    level, first, anchor, rows = find_tile(num_anchors, ROWS)
    start = pick(levels, level) + first * K
    label = load_labels(labels, anchor, rows, ROWS)
    row = tl.arange(0, ROWS)
    is_pos = (label >= 0) & (label < K)
    x = tl.load(start + row * K + label, mask=is_pos, other=0.0).to(tl.float32)
    score = tl.where(x == x, exact_sigmoid(x), -float("inf"))
    tl.store(scores + anchor + row, tl.where(is_pos, score, float("inf")), mask=row < rows)
    num_programs = tl.num_programs(0) * tl.num_programs(1)
    sizes += tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    num_pos = tl.sum(is_pos.to(tl.int32))
    tl.store(sizes, tl.sum((label != IGNORED).to(tl.int32)) * K - num_pos)
    tl.store(sizes + num_programs, num_pos)


@triton.jit
def count_below(knots: tl.tensor, num: tl.tensor, step: tl.tensor, a: tl.tensor) -> Any:
    """How many of ``num`` ascending knots are below each a. step: the largest power of 2 up to num. int32."""
    count = tl.zeros(a.shape, tl.int32)
    while step > 0:
        probed = count + step
        there = probed <= num
        knot = tl.load(knots + probed - 1, mask=there, other=float("inf"))
        count = tl.where(there & (knot < a), probed, count)
        step = step // 2
    return count


@triton.jit
def add_at(table: tl.tensor, place: tl.tensor, todo: tl.tensor, values: tl.tuple, lane: tl.tensor) -> None:
    """Adds 1 and the int64 ``values`` of each entry of the mask ``todo`` to ``table`` [places, 1 + len(values)], int64.

    lane: a different number for each entry. The places of a few entries are added up by all threads first: no place
    that many entries have is left for one addition per entry.
    """
    SIZE: tl.constexpr = 1 + len(values)
    for _ in tl.static_range(ROUNDS):
        first = tl.min(tl.where(todo, lane, 0x7FFFFFFF))
        here = tl.sum(tl.where(lane == first, place, 0))
        same = todo & (place == here)
        count = tl.sum(same.to(tl.int32)).to(tl.int64)
        tl.atomic_add(table + here * SIZE, count, mask=count > 0, sem="relaxed")
        for k in tl.static_range(len(values)):
            total = tl.sum(tl.where(same, values[k], 0))
            tl.atomic_add(table + here * SIZE + 1 + k, total, mask=count > 0, sem="relaxed")
        todo = todo & (place != here)
    tl.atomic_add(table + place * SIZE, todo.to(tl.int64), mask=todo, sem="relaxed")
    for k in tl.static_range(len(values)):
        tl.atomic_add(table + place * SIZE + 1 + k, values[k], mask=todo, sem="relaxed")


@triton.jit
def sums_at(sums: tl.tensor, count: tl.tensor, a: tl.tensor, stride: tl.tensor, POWER: tl.constexpr) -> Any:
    """The sum of (a - t)^POWER over the first ``count`` knots. sums: [2, S, M + 1], of t and t^2; stride: S (M + 1)."""
    number, first = count.to(tl.float64), tl.load(sums + count)
    if POWER == 1:
        return number * a - first
    return (number * a - 2.0 * first) * a + tl.load(sums + stride + count)


@triton.jit(do_not_specialize=["images_per_set", "num_images", "num_tiles", "size"])
def prepare(
    knots: tl.tensor,
    sizes: tl.tensor,
    sums: tl.tensor,
    numbers: tl.tensor,
    margin_high: tl.tensor,
    margin_low: tl.tensor,
    images_per_set: tl.tensor,
    num_images: tl.tensor,
    num_tiles: tl.tensor,
    size: tl.tensor,
    BLOCK: tl.constexpr,
    SQUARES: tl.constexpr,
) -> None:
    """Program s counts the entries of set s, and sums its knots. knots: [S, M]; sums: [2, S, M + 1], of t and t^2.

    numbers: [S, 4] int32: negatives, positives, knots, and the largest power of 2 up to the knots. A set without
    positives gets the knot of a constant perfect one. size: M.
    """
    this_set = tl.program_id(0)
    first = this_set * images_per_set * num_tiles
    num = tl.minimum(num_images - this_set * images_per_set, images_per_set) * num_tiles
    num_neg, num_pos = tl.zeros([], tl.int32), tl.zeros([], tl.int32)
    for start in range(0, num, BLOCK):
        tile = start + tl.arange(0, BLOCK)
        num_neg += tl.sum(tl.load(sizes + first + tile, mask=tile < num, other=0))
        num_pos += tl.sum(tl.load(sizes + num_images * num_tiles + first + tile, mask=tile < num, other=0))
    num_knots = tl.maximum(num_pos, 1)
    knots += this_set.to(tl.int64) * size
    perfect = 1.0 - exact(margin_high, margin_low)
    if num_pos == 0:
        tl.store(knots, perfect)
    step = tl.full([], 1, tl.int32)
    while step * 2 <= num_knots:
        step = step * 2
    numbers += this_set * 4
    tl.store(numbers, num_neg)
    tl.store(numbers + 1, num_pos)
    tl.store(numbers + 2, num_knots)
    tl.store(numbers + 3, step)
    if SQUARES >= 1:
        stride = tl.num_programs(0).to(tl.int64) * (size + 1)
        sums += this_set.to(tl.int64) * (size + 1)
        total, squares = tl.zeros([], tl.float64), tl.zeros([], tl.float64)
        tl.store(sums, total)
        if SQUARES == 2:
            tl.store(sums + stride, squares)
        for start in range(0, num_knots, BLOCK):
            place = start + tl.arange(0, BLOCK)
            there = place < num_knots
            knot = tl.load(knots + place, mask=there, other=0.0)
            # Written just now, by another thread.
            knot = tl.where((place == 0) & (num_pos == 0), perfect, knot)
            tl.store(sums + 1 + place, total + tl.cumsum(knot, axis=0), mask=there)
            total += tl.sum(knot)
            if SQUARES == 2:
                tl.store(sums + stride + 1 + place, squares + tl.cumsum(knot * knot, axis=0), mask=there)
                squares += tl.sum(knot * knot)


@triton.jit(do_not_specialize=["images_per_set", "size"])
def sum_pairs(
    levels: tl.tuple,
    num_anchors: tl.tuple,
    labels: tl.tensor,
    knots: tl.tensor,
    sums: tl.tensor,
    numbers: tl.tensor,
    table: tl.tensor,
    partials: tl.tensor,
    rho_high: tl.tensor,
    rho_low: tl.tensor,
    images_per_set: tl.tensor,
    num_sets: tl.tensor,
    size: tl.tensor,
    POWER: tl.constexpr,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """First pass: the sum over all pairs of each tile's negatives, partials [N, tiles] float64.

    POWER: 1 hinge, 2 quadratic. table: [POWER, S, M + 1, POWER] int64, zeros before: the number of negatives, and the
    sum of their scores, by the number of knots below a (hinge), or below a + rho and a - rho. Place 0 stays 0.
    """
    level, first, anchor, rows = find_tile(num_anchors, ROWS)
    start = pick(levels, level) + first * K
    label = load_labels(labels, anchor, rows, ROWS)
    this_set = (tl.program_id(1) // images_per_set).to(tl.int64)
    stride = wide(num_sets) * (size + 1)
    knots += this_set * size
    sums += this_set * (size + 1)
    table += this_set * (size + 1) * POWER
    num, step = tl.load(numbers + this_set * 4 + 2), tl.load(numbers + this_set * 4 + 3)
    rho = exact(rho_high, rho_low)
    lowest = tl.load(knots) - rho
    total = tl.zeros([ROWS, WIDTH], tl.float64)
    for piece in range((K + WIDTH - 1) // WIDTH):
        column, offsets = piece_of(piece, K, WIDTH, ROWS)
        there = entries_of(label != IGNORED, column, K, WIDTH)
        x = tl.load(start + offsets, mask=there, other=0.0).to(tl.float32)
        a = sigmoid(x).to(tl.float64)
        # NaN stays: it is not below the lowest knot.
        counts = there & (column != label[:, None]) & ((a > lowest) | (a != a))
        if tl.max(counts.to(tl.int32)) > 0:
            if POWER == 1:
                below = count_below(knots, num, step, a)
                total += tl.where(counts, sums_at(sums, below, a, stride, 1), 0.0)
                add_at(table, below, counts, (), offsets)
            else:
                fixed = (tl.where(counts & (a == a), a, 0.0) * FIXED_POINT + 0.5).to(tl.int64)
                for side in tl.static_range(2):
                    shifted = a + rho if side == 0 else a - rho
                    below = count_below(knots, num, step, shifted)
                    part = sums_at(sums, below, shifted, stride, 2)
                    total += tl.where(counts, part if side == 0 else -part, 0.0)
                    add_at(table + side * stride * 2, below, counts & (below > 0), (fixed,), offsets)
    if POWER == 2:
        total = total / (4.0 * rho)
    tl.store(partials + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0), tl.sum(total))


@triton.jit(do_not_specialize=["images_per_set", "num_images", "num_tiles", "size"])
def combine_pairs(
    knots: tl.tensor,
    order: tl.tensor,
    numbers: tl.tensor,
    table: tl.tensor,
    partials: tl.tensor,
    means: tl.tensor,
    grad_pos: tl.tensor,
    margin_high: tl.tensor,
    margin_low: tl.tensor,
    rho_high: tl.tensor,
    rho_low: tl.tensor,
    images_per_set: tl.tensor,
    num_images: tl.tensor,
    num_tiles: tl.tensor,
    size: tl.tensor,
    POWER: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Program s: the mean of set s, float64 [S], and its gradient by the logit of each positive, grad_pos [S, M].

    A set without negatives has a constant perfect one, with p = 0. order: [S, M] int64, the place of each knot in M.
    """
    this_set = tl.program_id(0)
    rho = exact(rho_high, rho_low)
    margin = exact(margin_high, margin_low)
    num_neg, num_knots = tl.load(numbers + this_set * 4), tl.load(numbers + this_set * 4 + 2)
    is_empty = num_neg == 0
    num_pairs = tl.maximum(num_neg, 1).to(tl.float64) * num_knots.to(tl.float64)
    stride = tl.num_programs(0).to(tl.int64) * (size + 1) * POWER
    knots += this_set.to(tl.int64) * size
    order += this_set.to(tl.int64) * size
    grad_pos += this_set.to(tl.int64) * size
    table += this_set.to(tl.int64) * (size + 1) * POWER

    total = tl.zeros([], tl.float64)
    first = this_set * images_per_set * num_tiles
    num = tl.minimum(num_images - this_set * images_per_set, images_per_set) * num_tiles
    for start in range(0, num, BLOCK):
        tile = start + tl.arange(0, BLOCK)
        total += tl.sum(tl.load(partials + first + tile, mask=tile < num, other=0.0))

    # From the highest knot down: the negatives above each.
    above, score_above = tl.zeros([], tl.int64), tl.zeros([], tl.int64)
    above_less, score_above_less = tl.zeros([], tl.int64), tl.zeros([], tl.int64)
    num_blocks = tl.cdiv(num_knots, BLOCK)
    for block in range(0, num_blocks):
        place = (num_blocks - 1 - block) * BLOCK + tl.arange(0, BLOCK)
        there = place < num_knots
        knot = tl.load(knots + place, mask=there, other=0.0)
        entry = table + (place + 1) * POWER
        count = tl.load(entry, mask=there, other=0)
        slope = (above + tl.cumsum(count, axis=0, reverse=True)).to(tl.float64)
        above += tl.sum(count)
        of_empty = tl.where(knot < 0.0, 1.0, 0.0)
        loss_of_empty = tl.maximum(-knot, 0.0)
        if POWER == 2:
            score = tl.load(entry + 1, mask=there, other=0)
            scores = (score_above + tl.cumsum(score, axis=0, reverse=True)).to(tl.float64) / FIXED_POINT
            score_above += tl.sum(score)
            count = tl.load(entry + stride, mask=there, other=0)
            number = (above_less + tl.cumsum(count, axis=0, reverse=True)).to(tl.float64)
            above_less += tl.sum(count)
            score = tl.load(entry + stride + 1, mask=there, other=0)
            scores_less = (score_above_less + tl.cumsum(score, axis=0, reverse=True)).to(tl.float64) / FIXED_POINT
            score_above_less += tl.sum(score)
            slope = (scores + slope * (rho - knot) - (scores_less - number * (rho + knot))) / (2.0 * rho)
            up, down = tl.maximum(rho - knot, 0.0), tl.maximum(-rho - knot, 0.0)
            of_empty, loss_of_empty = (up - down) / (2.0 * rho), (up * up - down * down) / (4.0 * rho)
        slope = tl.where(is_empty, of_empty, slope)
        total += tl.sum(tl.where(there & is_empty, loss_of_empty, 0.0))
        p = knot + margin
        target = tl.load(order + place, mask=there, other=0)
        tl.store(grad_pos + target, -slope / num_pairs * p * (1.0 - p), mask=there)
    # A positive of NaN is the first.
    is_nan = tl.load(knots) == -float("inf")
    tl.store(means + this_set, tl.where(is_nan, float("nan"), total / num_pairs))


@triton.jit(do_not_specialize=["images_per_set", "size"])
def write_pairs_gradient(
    levels: tl.tuple,
    gradients: tl.tuple,
    num_anchors: tl.tuple,
    labels: tl.tensor,
    knots: tl.tensor,
    sums: tl.tensor,
    numbers: tl.tensor,
    grad_pos: tl.tensor,
    slopes: tl.tensor,
    rho_high: tl.tensor,
    rho_low: tl.tensor,
    images_per_set: tl.tensor,
    num_sets: tl.tensor,
    size: tl.tensor,
    POWER: tl.constexpr,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """Second pass. slopes: [S] float64, d loss / d the means. The rest as in ``sum_pairs`` and ``combine_pairs``."""
    level, first, anchor, rows = find_tile(num_anchors, ROWS)
    start, target = pick(levels, level) + first * K, pick(gradients, level) + first * K
    label = load_labels(labels, anchor, rows, ROWS)
    row = tl.arange(0, ROWS)
    this_set = (tl.program_id(1) // images_per_set).to(tl.int64)
    stride = wide(num_sets) * (size + 1)
    knots += this_set * size
    sums += this_set * (size + 1)
    num_neg, num = tl.load(numbers + this_set * 4), tl.load(numbers + this_set * 4 + 2)
    step = tl.load(numbers + this_set * 4 + 3)
    rho = exact(rho_high, rho_low)
    slope = tl.load(slopes + this_set)
    of_positive = tl.load(grad_pos + anchor + row, mask=label >= 0, other=0.0) * slope
    scale = slope / (tl.maximum(num_neg, 1).to(tl.float64) * num.to(tl.float64))
    lowest = tl.load(knots) - rho
    for piece in range((K + WIDTH - 1) // WIDTH):
        column, offsets = piece_of(piece, K, WIDTH, ROWS)
        there = entries_of(row < rows, column, K, WIDTH)
        p = sigmoid(tl.load(start + offsets, mask=there, other=0.0).to(tl.float32))
        a = p.to(tl.float64)
        gradient = tl.zeros([ROWS, WIDTH], tl.float32)
        counts = (label[:, None] != IGNORED) & (column != label[:, None]) & (a > lowest)
        if tl.max(counts.to(tl.int32)) > 0:
            if POWER == 1:
                by_score = count_below(knots, num, step, a).to(tl.float64)
            else:
                up = sums_at(sums, count_below(knots, num, step, a + rho), a + rho, stride, 1)
                down = sums_at(sums, count_below(knots, num, step, a - rho), a - rho, stride, 1)
                by_score = (up - down) / (2.0 * rho)
            gradient = tl.where(counts, (by_score * scale).to(tl.float32) * (p * (1.0 - p)), 0.0)
        gradient = tl.where(
            (column == label[:, None]) & (label[:, None] >= 0), of_positive[:, None].to(tl.float32), gradient
        )
        tl.store(target + offsets, gradient.to(target.dtype.element_ty), mask=there)
