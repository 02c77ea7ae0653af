"""Triton kernels over the negatives that ``gpu_largest`` chose: their sums, and the gradient. Other tiles are not read.

The negatives of a set that count are those with a code above a threshold, and the first few of those that equal it.
All equal ones are alike, so that the sums need their number only. The gradient needs to know which: those up to an
entry, the last, given by its tile and its place there.

KIND says what is summed. "scores": the distribution of Eq. 6. "ranking": that, and the positives' too.
"cross_entropy": -log p_t of both. "extremes": nothing; all entries that equal the largest count, and share its gradient
evenly, and so do the lowest positives.

Needs triton. Legend: as in ``gpu_largest``.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from drloss.kernels.gpu_largest import (
    code_of,
    codes_of_piece,
    excluded_code,
    find_listed_tile,
    largest_of_tile,
    narrowed,
    softplus,
    value_of,
)
from drloss.kernels.gpu_tiles import LOG2_E, entries_of, find_tile, load_labels, pick, piece_of, sigmoid

EXCLUDED: tl.constexpr = tl.constexpr(-1e30)  # finite, so that its weight, 0, times it is 0


@triton.jit
def _exact_sigmoid(x: tl.tensor) -> Any:
    """1 / (1 + e^-x) in float64."""
    tail = tl.exp(-tl.abs(x.to(tl.float64)))
    return tl.where(x > 0, 1.0, tail) / (1.0 + tail)


@triton.jit
def _threshold(
    bounds: tl.tensor,
    counts: tl.tensor,
    prefixes: tl.tensor,
    remaining: tl.tensor,
    D: tl.constexpr,
    KIND: tl.constexpr,
) -> Any:
    """Of set ``program_id(1)``: the code above which all negatives count, and how many count of those that equal it."""
    if KIND == "extremes":
        threshold, of_equal = tl.load(bounds + tl.program_id(1)), tl.zeros([], tl.int64)
    else:
        threshold, of_equal = narrowed(counts, prefixes, remaining, D, D)
        of_equal = tl.where(threshold > excluded_code(D), of_equal, 0)
    return threshold, of_equal


@triton.jit(do_not_specialize=["images_per_set", "num_images", "num_tiles"])
def sum_chosen(
    levels: tl.tuple,
    num_anchors: tl.tuple,
    labels: tl.tensor,
    largest: tl.tensor,
    bounds: tl.tensor,
    listed: tl.tensor,
    num_listed: tl.tensor,
    counts: tl.tensor,
    prefixes: tl.tensor,
    remaining: tl.tensor,
    thresholds: tl.tensor,
    num_of_equal: tl.tensor,
    partials: tl.tensor,
    num_equal: tl.tensor,
    inverse_lambda: tl.tensor,
    images_per_set: tl.tensor,
    num_images: tl.tensor,
    num_tiles: tl.tensor,
    KIND: tl.constexpr,
    D: tl.constexpr,
    GROUPS: tl.constexpr,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """Sums over the negatives above the threshold, tile by listed tile.

    thresholds: [S] int32; num_of_equal: [S] int64, how many of those that equal it count. partials: [3, N * T] float32:
    the largest exponent (base 2), the sum of weights or losses, the sum of weight * p; num_equal: [N * T] int32, how
    many entries equal the threshold. Both are in the places of ``listed``.
    """
    this_set, num_partials = tl.program_id(1), num_images * num_tiles
    base = this_set.to(tl.int64) * images_per_set * num_tiles
    threshold, of_equal = _threshold(bounds, counts, prefixes, remaining, D, KIND)
    if tl.program_id(0) == 0:
        tl.store(thresholds + this_set, threshold)
        tl.store(num_of_equal + this_set, of_equal)
    scale = tl.maximum(inverse_lambda * LOG2_E, 1e-24)
    for place in range(tl.program_id(0), tl.load(num_listed + this_set), tl.num_programs(0)):
        tile = tl.load(listed + base + place)
        hardest = largest_of_tile(largest + base * GROUPS, tile, GROUPS)
        equal = tl.zeros([ROWS, WIDTH], tl.int32)
        top, total, weighted = tl.zeros([], tl.float32), tl.zeros([], tl.float32), tl.zeros([], tl.float32)
        if hardest >= threshold:
            level, row, anchor, rows = find_listed_tile(num_anchors, tile, images_per_set, num_tiles, ROWS)
            label = load_labels(labels, anchor, rows, ROWS)
            start = pick(levels, level) + row * K
            # The exponents are relative to the tile's hardest entry.
            top = tl.maximum(sigmoid(value_of(hardest, D)) * scale, 0.0)
            sums, products = tl.zeros([ROWS, WIDTH], tl.float32), tl.zeros([ROWS, WIDTH], tl.float32)
            for piece in range((K + WIDTH - 1) // WIDTH):
                x, code = codes_of_piece(start, label, piece, D, K, WIDTH, ROWS)
                larger = code > threshold
                equal += ((code == threshold) & (code > excluded_code(D))).to(tl.int32)
                if KIND == "scores" or KIND == "ranking":
                    p = tl.where(larger, sigmoid(x), EXCLUDED)
                    weight = tl.exp2(p * scale - top)
                    sums += weight
                    products += weight * p
                elif KIND == "cross_entropy":
                    sums += tl.where(larger, softplus(x), 0.0)
            total, weighted = tl.sum(sums), tl.sum(products)
        tl.store(partials + base + place, top)
        tl.store(partials + num_partials + base + place, total)
        tl.store(partials + 2 * num_partials + base + place, weighted)
        tl.store(num_equal + base + place, tl.sum(equal))


@triton.jit
def _last_of_equal(
    levels: tl.tuple,
    num_anchors: tl.tuple,
    labels: tl.tensor,
    listed: tl.tensor,
    num: tl.tensor,
    threshold: tl.tensor,
    of_equal: tl.tensor,
    num_equal: tl.tensor,
    images_per_set: tl.tensor,
    num_tiles: tl.tensor,
    D: tl.constexpr,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> Any:
    """Tile and place in it of the last entry that counts of those that equal the threshold; -1, -1 for none.

    listed, num_equal: at the set's first place; num: listed tiles. COLUMNS: K, up to a power of 2.
    """
    found, left, rank = tl.full([], -1, tl.int32), tl.zeros([], tl.int64), of_equal
    for start in range(0, num, BLOCK):
        place = start + tl.arange(0, BLOCK)
        equal = tl.load(num_equal + place, mask=place < num, other=0).to(tl.int64)
        index, before = _place_of_rank(equal, rank, BLOCK)
        left = tl.where(index >= 0, rank - before, left)
        found = tl.where(index >= 0, start + index, found)
        rank -= tl.sum(equal)
    tile, last = tl.full([], -1, tl.int32), tl.full([], -1, tl.int32)
    if found >= 0:
        tile = tl.load(listed + found)
        level, row, anchor, rows = find_listed_tile(num_anchors, tile, images_per_set, num_tiles, ROWS)
        entries = pick(levels, level) + row * K
        label = load_labels(labels, anchor, rows, ROWS)
        of_rows = tl.zeros([ROWS], tl.int32)
        for piece in range((K + WIDTH - 1) // WIDTH):
            _, code = codes_of_piece(entries, label, piece, D, K, WIDTH, ROWS)
            of_rows += tl.sum((code == threshold).to(tl.int32), axis=1)
        this_row, before = _place_of_rank(of_rows.to(tl.int64), left, ROWS)
        own = tl.sum(tl.where(tl.arange(0, ROWS) == this_row, label, 0)) + tl.zeros([1], tl.int32)
        _, code = codes_of_piece(entries + this_row * K, own, 0, D, K, COLUMNS, 1)
        equal = tl.reshape((code == threshold).to(tl.int64), [COLUMNS])
        column, _ = _place_of_rank(equal, left - before, COLUMNS)
        last = this_row * K + column
    return tile, last


@triton.jit
def _place_of_rank(counts: tl.tensor, rank: tl.tensor, SIZE: tl.constexpr) -> Any:
    """Where the running sum of counts [SIZE] reaches ``rank``, 1 for the first, and the sum before; -1 for nowhere."""
    running = tl.cumsum(counts, axis=0)
    here = (running >= rank) & (running - counts < rank)
    index = tl.max(tl.where(here, tl.arange(0, SIZE), -1))
    return index, tl.sum(tl.where(here, running - counts, 0))


@triton.jit
def _hardest_positive(
    of_positives: tl.tensor,
    num_images: tl.tensor,
    num_tiles: tl.tensor,
    first: tl.tensor,
    num: tl.tensor,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
) -> Any:
    """The largest code of -x of a set's positives, and how many have it. first, num: the set's tiles."""
    hardest, equal = excluded_code(D), tl.zeros([], tl.int64)
    for start in range(0, num, BLOCK):
        tile = start + tl.arange(0, BLOCK)
        code = tl.load(of_positives + first + tile, mask=tile < num, other=-(2 ** (8 * D - 1)))
        count = tl.load(of_positives + num_images * num_tiles + first + tile, mask=tile < num, other=0).to(tl.int64)
        harder = tl.maximum(hardest, tl.max(code))
        equal = tl.where(harder > hardest, 0, equal) + tl.sum(tl.where(code == harder, count, 0))
        hardest = harder
    return hardest, equal


@triton.jit(do_not_specialize=["images_per_set", "num_images", "num_tiles"])
def combine_chosen(
    levels: tl.tuple,
    num_anchors: tl.tuple,
    labels: tl.tensor,
    listed: tl.tensor,
    num_listed: tl.tensor,
    thresholds: tl.tensor,
    num_of_equal: tl.tensor,
    partials: tl.tensor,
    num_equal: tl.tensor,
    of_positives: tl.tensor,
    results: tl.tensor,
    marks: tl.tensor,
    inverse_lambda: tl.tensor,
    inverse_pos: tl.tensor,
    images_per_set: tl.tensor,
    num_images: tl.tensor,
    num_tiles: tl.tensor,
    KIND: tl.constexpr,
    D: tl.constexpr,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Program (0, s) adds the sums of set s in float64, in a fixed order, and finds the last entry that counts.

    results: [4, S] float64. "scores": P-, 0, and the log of its normaliser; "ranking": P-, -P+, and both logs;
    "cross_entropy": the sum; "extremes": p of the hardest negative, -p of the hardest positive, and how many share
    each. marks: [S, 2] int32, tile and place of the last entry; for "extremes" the code of -x of the hardest positive,
    and 0.
    """
    this_set, num_sets = tl.program_id(1), tl.num_programs(1)
    base = this_set.to(tl.int64) * images_per_set * num_tiles
    num_partials = num_images * num_tiles
    tiles_of_set = tl.minimum(num_images - this_set * images_per_set, images_per_set) * num_tiles
    num, threshold = tl.load(num_listed + this_set), tl.load(thresholds + this_set)
    of_equal = tl.load(num_of_equal + this_set)
    value = value_of(threshold, D)
    first, second, third, fourth = 0.0, 0.0, 0.0, 0.0
    if KIND == "extremes":
        shares = tl.zeros([], tl.int64)
        for start in range(0, num, BLOCK):
            place = start + tl.arange(0, BLOCK)
            shares += tl.sum(tl.load(num_equal + base + place, mask=place < num, other=0).to(tl.int64))
        code, of_code = _hardest_positive(of_positives, num_images, num_tiles, base, tiles_of_set, D, BLOCK)
        first = tl.where(shares > 0, _exact_sigmoid(value), 0.0)
        second = tl.where(of_code > 0, -_exact_sigmoid(-value_of(code, D)), -1.0)
        third, fourth = shares.to(tl.float64), of_code.to(tl.float64)
        tl.store(marks + 2 * this_set, code)
        tl.store(marks + 2 * this_set + 1, 0)
    else:
        if KIND == "scores" or KIND == "ranking":
            first, third = _expectation(
                partials + base, num, num_partials, sigmoid(value), of_equal, inverse_lambda, BLOCK
            )
            if KIND == "ranking":
                # A set without positives has a constant one with p = 1.
                second, fourth = _expectation(
                    of_positives + base, tiles_of_set, num_partials, -1.0, tl.zeros([], tl.int64), inverse_pos, BLOCK
                )
                second = tl.where(fourth == -float("inf"), -1.0, second)
        else:
            first = tl.where(of_equal > 0, of_equal.to(tl.float64) * softplus(value).to(tl.float64), 0.0)
            for start in range(0, num, BLOCK):
                place = start + tl.arange(0, BLOCK)
                part = tl.load(partials + num_partials + base + place, mask=place < num, other=0.0)
                first += tl.sum(part.to(tl.float64))
            for start in range(0, tiles_of_set, BLOCK):
                place = start + tl.arange(0, BLOCK)
                part = tl.load(of_positives + base + place, mask=place < tiles_of_set, other=0.0)
                first += tl.sum(part.to(tl.float64))
        tile, last = _last_of_equal(
            *(levels, num_anchors, labels, listed + base, num, threshold, of_equal, num_equal + base),
            *(images_per_set, num_tiles, D, K, WIDTH, ROWS, COLUMNS, BLOCK),
        )
        tl.store(marks + 2 * this_set, tile)
        tl.store(marks + 2 * this_set + 1, last)
    tl.store(results + this_set, first)
    tl.store(results + num_sets + this_set, second)
    tl.store(results + 2 * num_sets + this_set, third)
    tl.store(results + 3 * num_sets + this_set, fourth)


@triton.jit
def _expectation(
    partials: tl.tensor,
    num: tl.tensor,
    num_partials: tl.tensor,
    value: tl.tensor,
    of_equal: tl.tensor,
    inverse_lambda: tl.tensor,
    BLOCK: tl.constexpr,
) -> Any:
    """The expected value and the log of its normaliser; 0 and -inf of nothing.

    partials: [3, N * T] at the set's first; ``of_equal`` more entries have this value.
    """
    scale = tl.maximum(inverse_lambda * LOG2_E, 1e-24)
    value = tl.where(of_equal > 0, value, -1.0)
    top, total = value * scale, of_equal.to(tl.float64)
    weighted = total * value.to(tl.float64)
    for start in range(0, num, BLOCK):
        place = start + tl.arange(0, BLOCK)
        exponent = tl.load(partials + place, mask=place < num, other=-1e30)
        sums = tl.load(partials + num_partials + place, mask=place < num, other=0.0)
        products = tl.load(partials + 2 * num_partials + place, mask=place < num, other=0.0)
        larger = tl.maximum(top, tl.max(exponent))
        factor, kept = tl.exp2(exponent - larger).to(tl.float64), tl.exp2(top - larger).to(tl.float64)
        total = total * kept + tl.sum(factor * sums.to(tl.float64))
        weighted = weighted * kept + tl.sum(factor * products.to(tl.float64))
        top = larger
    is_empty = total == 0
    log_total = tl.where(is_empty, -float("inf"), tl.log(tl.where(is_empty, 1.0, total)))
    return weighted / tl.where(is_empty, 1.0, total), top.to(tl.float64) / LOG2_E + log_total


@triton.jit(do_not_specialize=["images_per_set", "num_sets"])
def write_chosen_gradient(
    levels: tl.tuple,
    gradients: tl.tuple,
    num_anchors: tl.tuple,
    labels: tl.tensor,
    largest: tl.tensor,
    thresholds: tl.tensor,
    marks: tl.tensor,
    results: tl.tensor,
    slopes: tl.tensor,
    grad_pos: tl.tensor,
    inverse_lambda: tl.tensor,
    inverse_pos: tl.tensor,
    images_per_set: tl.tensor,
    num_sets: tl.tensor,
    KIND: tl.constexpr,
    D: tl.constexpr,
    GROUPS: tl.constexpr,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """Writes every entry of the gradients; reads the tiles only in which a negative counts.

    slopes: [S] or, for "ranking" and "extremes", [2, S]: d loss / d the first of the results, or the first two.
    grad_pos: [N, R] float32, d loss / d the positives' logits, for "scores" only.
    """
    level, row_of_level, anchor, rows = find_tile(num_anchors, ROWS)
    start, target = pick(levels, level) + row_of_level * K, pick(gradients, level) + row_of_level * K
    label = load_labels(labels, anchor, rows, ROWS)
    row = tl.arange(0, ROWS)
    image = tl.program_id(1)
    this_set = image // images_per_set
    tile = (image - this_set * images_per_set) * tl.num_programs(0) + tl.program_id(0)
    hardest = largest_of_tile(largest, image * tl.num_programs(0) + tl.program_id(0), GROUPS)
    threshold, last_tile = tl.load(thresholds + this_set), tl.load(marks + 2 * this_set)
    last = tl.load(marks + 2 * this_set + 1)
    slope = tl.load(slopes + this_set)
    is_pos = (label >= 0) & (label < K)
    if KIND == "scores":
        of_positive = tl.load(grad_pos + anchor + row, mask=is_pos, other=0.0)
    else:
        own = tl.load(start + row * K + label, mask=is_pos, other=0.0).to(tl.float32)
        if KIND == "cross_entropy":
            of_positive = -slope.to(tl.float32) * sigmoid(-own)
        else:
            normalizer = tl.load(results + 3 * num_sets + this_set)
            slope_pos = tl.load(slopes + num_sets + this_set)
            p_own = sigmoid(own)
            of_positive = -(p_own * (1.0 - p_own))
            if KIND == "ranking":
                value = tl.load(results + num_sets + this_set).to(tl.float32)
                q_own = tl.exp2(-p_own * (inverse_pos * LOG2_E) - (normalizer * LOG2_E).to(tl.float32))
                of_positive *= slope_pos.to(tl.float32) * q_own * (1.0 - (p_own + value) * inverse_pos)
            else:
                each = slope_pos / tl.where(normalizer > 0, normalizer, 1.0)
                of_positive = tl.where(code_of(-own, D) == last_tile, of_positive * each.to(tl.float32), 0.0)
    # Of the entries that equal the threshold, those before the last one count.
    end = tl.where(tile < last_tile, ROWS * K, tl.where(tile == last_tile, last, -1))
    expected, exponent_of_normalizer = 0.0, 0.0
    if KIND == "scores" or KIND == "ranking":
        expected = tl.load(results + this_set).to(tl.float32)
        exponent_of_normalizer = (tl.load(results + 2 * num_sets + this_set) * LOG2_E).to(tl.float32)
    elif KIND == "extremes":
        shares = tl.load(results + 2 * num_sets + this_set)
        slope, end = slope / tl.where(shares > 0, shares, 1.0), ROWS * K
    slope = slope.to(tl.float32)
    counts = (hardest >= threshold) & (hardest > excluded_code(D))
    for piece in tl.static_range((K + WIDTH - 1) // WIDTH):
        column, offsets = piece_of(piece, K, WIDTH, ROWS)
        gradient = tl.zeros([ROWS, WIDTH], tl.float32)
        if counts:
            x, code = codes_of_piece(start, label, piece, D, K, WIDTH, ROWS)
            chosen = (code > threshold) | ((code == threshold) & (offsets <= end))
            p = sigmoid(x)
            if KIND == "scores" or KIND == "ranking":
                q = tl.exp2(p * (inverse_lambda * LOG2_E) - exponent_of_normalizer)
                gradient = slope * q * (1.0 + (p - expected) * inverse_lambda) * (p * (1.0 - p))
            elif KIND == "cross_entropy":
                gradient = slope * p
            else:
                gradient = slope * (p * (1.0 - p))
            gradient = tl.where(chosen & (code > excluded_code(D)), gradient, 0.0)
        gradient = tl.where((column == label[:, None]) & is_pos[:, None], of_positive[:, None], gradient)
        there = entries_of(row < rows, column, K, WIDTH)
        tl.store(target + offsets, gradient.to(target.dtype.element_ty), mask=there)
