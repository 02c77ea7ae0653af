"""Triton kernels that find the largest negatives of each set of images exactly, without a sort, with one full read.

How many there are to find depends on the number of positives, which only the device knows. ``summarize`` reads all
logits and keeps the largest negative of each group of anchors. The k-th largest of these is a lower bound of the k-th
largest negative, so that ``list_tiles`` can leave out most tiles. ``count_digits`` then narrows the k-th largest down,
8 bits per launch, by histograms of the tiles that are left. All sums here are of integers: no order changes them.

Logits are compared as codes: the integer with the bits of the float32, turned so that it is ordered as the float is,
without the low bits that a half-precision logit does not have. NaN is the largest, -0 equals 0.

Needs triton. Legend: N images, K classes, S sets of ``images_per_set`` consecutive images (the last may have fewer),
T tiles per image as in ``gpu_tiles``, G groups of anchors per tile, D digits of 8 bits per code. A tile's number counts
all tiles of its set.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from drloss.kernels.gpu_pointwise import _log1p
from drloss.kernels.gpu_tiles import (
    IGNORED,
    LOG2_E,
    entries_of,
    find_tile,
    load_labels,
    pick,
    piece_of,
    place_of_tile,
    sigmoid,
)

NAN_CODE: tl.constexpr = tl.constexpr(0x7FFFFFFF)


@triton.jit
def softplus(x: tl.tensor) -> Any:
    """log(1 + e^x)."""
    return tl.maximum(x, 0.0) + _log1p(tl.exp2(tl.abs(x) * -LOG2_E))


@triton.jit
def excluded_code(D: tl.constexpr) -> Any:
    """Below the code of every logit: of entries that are no negatives."""
    return tl.full([], -(2 ** (8 * D - 1)), tl.int32)


@triton.jit
def code_of(x: tl.tensor, D: tl.constexpr) -> Any:
    """The code of float32 x, int32, in the order of x."""
    bits = tl.where(x == 0.0, 0.0, x).to(tl.int32, bitcast=True)
    code = tl.where(x == x, bits ^ ((bits >> 31) & 0x7FFFFFFF), NAN_CODE)
    return code >> (32 - 8 * D)


@triton.jit
def value_of(code: tl.tensor, D: tl.constexpr) -> Any:
    """The float32 with this code."""
    LOW: tl.constexpr = 2 ** (32 - 8 * D) - 1
    bits = (code << (32 - 8 * D)) | tl.where(code < 0, LOW, 0)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def codes_of_piece(
    start: tl.tensor,
    label: tl.tensor,
    piece: tl.tensor,
    D: tl.constexpr,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
) -> Any:
    """Logits and codes of a piece, [ROWS, WIDTH]; entries that are no negatives have ``excluded_code``."""
    column, offsets = piece_of(piece, K, WIDTH, ROWS)
    # A mask that does not depend on the class, so that a load has 16 bytes.
    there = entries_of(label != IGNORED, column, K, WIDTH)
    x = tl.load(start + offsets, mask=there, other=0.0).to(tl.float32)
    return x, tl.where(there & (column != label[:, None]), code_of(x, D), excluded_code(D))


@triton.jit
def find_listed_tile(
    num_anchors: tl.tuple, tile: tl.tensor, images_per_set: tl.tensor, num_tiles: tl.tensor, ROWS: tl.constexpr
) -> Any:
    """``gpu_tiles.find_tile`` for tile number ``tile`` of set ``program_id(1)``."""
    image = tl.program_id(1) * images_per_set + tile // num_tiles
    return place_of_tile(num_anchors, tile % num_tiles, image, ROWS)


@triton.jit
def largest_of_tile(largest: tl.tensor, tile: tl.tensor, GROUPS: tl.constexpr) -> Any:
    """The largest code of a tile. largest: [..., G] int32, at the first tile of the set or image."""
    return tl.max(tl.load(largest + tile * GROUPS + tl.arange(0, GROUPS)))


@triton.jit
def summarize(
    levels: tl.tuple,
    num_anchors: tl.tuple,
    labels: tl.tensor,
    largest: tl.tensor,
    num_pos: tl.tensor,
    of_positives: tl.tensor,
    inverse_pos: tl.tensor,
    KIND: tl.constexpr,
    D: tl.constexpr,
    GROUPS: tl.constexpr,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """One read of all logits. largest: [N, T, G] int32 codes; num_pos: [N, T] int32, positives of a tile.

    of_positives, by KIND (see ``gpu_chosen``). "scores": [N, R] float32, the logit of each anchor's own class, 0 where
    label < 0. "cross_entropy": [N, T] float32, the sum of log(1 + e^-x) of a tile's positives. "ranking": [3, N, T]
    float32, of -p of a tile's positives: largest exponent (base 2), sum of weights, sum of weight * -p. "extremes":
    [2, N, T] int32, the largest code of -x of a tile's positives, and how many have it.
    """
    level, first, anchor, rows = find_tile(num_anchors, ROWS)
    start = pick(levels, level) + first * K
    label = load_labels(labels, anchor, rows, ROWS)
    row = tl.arange(0, ROWS)
    # A label >= K (only the host could refuse it) must not read another anchor's logit.
    pos_logit = tl.load(start + row * K + label, mask=(label >= 0) & (label < K), other=0.0)
    pos_logit = pos_logit.to(tl.float32)
    tile = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    num_programs = tl.num_programs(0) * tl.num_programs(1)
    tl.store(num_pos + tile, tl.sum((label >= 0).to(tl.int32)))
    if KIND == "scores":
        tl.store(of_positives + anchor + row, pos_logit, mask=row < rows)
    elif KIND == "cross_entropy":
        tl.store(of_positives + tile, tl.sum(tl.where(label >= 0, softplus(-pos_logit), 0.0)))
    elif KIND == "ranking":
        value = tl.where(label >= 0, -sigmoid(pos_logit), -1e30)  # finite, so that its weight, 0, times it is 0
        scale = tl.maximum(inverse_pos * LOG2_E, 1e-24)
        top = tl.maximum(tl.max(value), -1.0) * scale
        weight = tl.exp2(value * scale - top)
        tl.store(of_positives + tile, top)
        tl.store(of_positives + num_programs + tile, tl.sum(weight))
        tl.store(of_positives + 2 * num_programs + tile, tl.sum(weight * value))
    else:
        code = tl.where(label >= 0, code_of(-pos_logit, D), excluded_code(D))
        hardest_pos = tl.max(code)
        tl.store(of_positives + tile, hardest_pos)
        equal = (code == hardest_pos) & (label >= 0)
        tl.store(of_positives + num_programs + tile, tl.sum(equal.to(tl.int32)))

    hardest = tl.full([ROWS, WIDTH], -(2 ** (8 * D - 1)), tl.int32)
    for piece in tl.static_range((K + WIDTH - 1) // WIDTH):
        _, code = codes_of_piece(start, label, piece, D, K, WIDTH, ROWS)
        hardest = tl.maximum(hardest, code)
    of_groups = tl.max(tl.reshape(tl.max(hardest, axis=1), [GROUPS, ROWS // GROUPS]), axis=1)
    tl.store(largest + tile * GROUPS + tl.arange(0, GROUPS), of_groups)


@triton.jit
def digit_of(code: tl.tensor, digit: tl.constexpr, D: tl.constexpr) -> Any:
    """Digit number ``digit`` of a code, the highest first, 0 to 255."""
    shifted = code >> (8 * (D - 1 - digit))
    return shifted + 128 if digit == 0 else shifted & 255


@triton.jit
def next_digit(counts: tl.tensor, prefix: tl.tensor, remaining: tl.tensor, digit: tl.constexpr) -> Any:
    """The prefix with one more digit of the ``remaining``-th largest code, and which largest it is among those.

    counts: [256] int64, of codes with this prefix by their next digit. With too few of them the digit is the lowest.
    """
    value = tl.arange(0, 256)
    enough = tl.cumsum(counts, axis=0, reverse=True) >= remaining
    chosen = tl.max(tl.where(enough, value, 0))
    remaining -= tl.sum(tl.where(value > chosen, counts, 0))
    return (chosen - 128 if digit == 0 else prefix * 256 + chosen), remaining


@triton.jit
def rounded_count(num_pos: tl.tensor, ratio: tl.tensor) -> Any:
    """n^ of ``inputs.mined_negatives``: num_pos * ratio in float32, rounded, halves to even; at least 1. int64."""
    exact = num_pos.to(tl.float32) * ratio
    below = tl.floor(exact)
    is_odd = tl.floor(below * 0.5) * 2.0 != below
    rest = exact - below
    count = below + tl.where((rest > 0.5) | ((rest == 0.5) & is_odd), 1.0, 0.0)
    # More than there can be entries; a larger one would not fit.
    return tl.minimum(tl.maximum(count, 1.0), 1e18).to(tl.int64)


@triton.jit(do_not_specialize=["images_per_set", "num_images", "num_tiles"])
def list_tiles(
    largest: tl.tensor,
    num_pos: tl.tensor,
    bounds: tl.tensor,
    keep: tl.tensor,
    listed: tl.tensor,
    num_listed: tl.tensor,
    ratio: tl.tensor,
    images_per_set: tl.tensor,
    num_images: tl.tensor,
    num_tiles: tl.tensor,
    D: tl.constexpr,
    GROUPS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Program s finds the tiles of set s that can hold its ``keep`` largest negatives. ratio: 0 keeps one.

    bounds: [S] int32, no larger than the code of any of them; keep: [S] int64; listed: [N * T] int32, the tiles in
    order, from the set's first place on; num_listed: [S] int32. largest, num_pos: as ``summarize`` writes them.
    """
    this_set = tl.program_id(0)
    first = this_set * images_per_set * num_tiles
    num = (tl.minimum(num_images - this_set * images_per_set, images_per_set)) * num_tiles
    total = tl.zeros([], tl.int64)
    for start in range(0, num, BLOCK):
        tile = start + tl.arange(0, BLOCK)
        total += tl.sum(tl.load(num_pos + first + tile, mask=tile < num, other=0)).to(tl.int64)
    wanted = rounded_count(total, ratio)
    bound, remaining = tl.zeros([], tl.int32), wanted
    for digit in tl.static_range(D):
        counts = tl.zeros([256], tl.int32)
        for start in range(0, num * GROUPS, BLOCK):
            group = start + tl.arange(0, BLOCK)
            here = group < num * GROUPS
            code = tl.load(largest + first * GROUPS + group, mask=here, other=0)
            if digit > 0:
                here = here & ((code >> (8 * (D - digit))) == bound)
            counts += tl.histogram(digit_of(code, digit, D), 256, mask=here)
        bound, remaining = next_digit(counts.to(tl.int64), bound, remaining, digit)
    TILES: tl.constexpr = BLOCK // GROUPS
    so_far = tl.zeros([], tl.int32)
    for start in range(0, num, TILES):
        tile = start + tl.arange(0, TILES)
        group = tile[:, None] * GROUPS + tl.arange(0, GROUPS)[None, :]
        codes = tl.load(largest + first * GROUPS + group, mask=tile[:, None] < num, other=-(2 ** (8 * D - 1)))
        hardest = tl.max(codes, axis=1)
        chosen = (hardest >= bound) & (hardest > excluded_code(D))
        place = so_far + tl.cumsum(chosen.to(tl.int32), axis=0) - 1
        tl.store(listed + first + place, tile, mask=chosen)
        so_far += tl.sum(chosen.to(tl.int32))
    tl.store(bounds + this_set, bound)
    tl.store(keep + this_set, wanted)
    tl.store(num_listed + this_set, so_far)


@triton.jit
def narrowed(
    counts: tl.tensor,
    prefixes: tl.tensor,
    remaining: tl.tensor,
    digit: tl.constexpr,
    D: tl.constexpr,
) -> Any:
    """The first ``digit`` digits of the code of set ``program_id(1)``, and which largest it is among those that share
    them. counts: [S, D, 256] int64; prefixes: [S, D] int32 and remaining: [S, D] int64, before each digit but the last.
    """
    before = tl.program_id(1) * D + digit - 1
    of_digits = tl.load(counts + before * 256 + tl.arange(0, 256))
    return next_digit(of_digits, tl.load(prefixes + before), tl.load(remaining + before), digit - 1)


@triton.jit(do_not_specialize=["images_per_set", "num_tiles"])
def count_digits(
    levels: tl.tuple,
    num_anchors: tl.tuple,
    labels: tl.tensor,
    largest: tl.tensor,
    bounds: tl.tensor,
    keep: tl.tensor,
    listed: tl.tensor,
    num_listed: tl.tensor,
    counts: tl.tensor,
    prefixes: tl.tensor,
    remaining: tl.tensor,
    images_per_set: tl.tensor,
    num_tiles: tl.tensor,
    digit: tl.constexpr,
    D: tl.constexpr,
    GROUPS: tl.constexpr,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """Counts the codes that share the digits found so far by their next one: adds to counts, [S, D, 256] int64.

    The programs of a set share its listed tiles. Tiles without such a code are not read.
    """
    this_set = tl.program_id(1)
    first = this_set.to(tl.int64) * images_per_set * num_tiles
    bound = tl.load(bounds + this_set)
    if digit == 0:
        prefix, rank = tl.zeros([], tl.int32), tl.load(keep + this_set)
    else:
        prefix, rank = narrowed(counts, prefixes, remaining, digit, D)
    if tl.program_id(0) == 0:
        tl.store(prefixes + this_set * D + digit, prefix)
        tl.store(remaining + this_set * D + digit, rank)
    found = tl.zeros([256], tl.int32)
    for place in range(tl.program_id(0), tl.load(num_listed + this_set), tl.num_programs(0)):
        tile = tl.load(listed + first + place)
        hardest = largest_of_tile(largest + first * GROUPS, tile, GROUPS)
        if digit > 0:
            hardest = hardest >> (8 * (D - digit))
        if (digit == 0) | (hardest >= prefix):
            level, row, anchor, rows = find_listed_tile(num_anchors, tile, images_per_set, num_tiles, ROWS)
            label = load_labels(labels, anchor, rows, ROWS)
            start = pick(levels, level) + row * K
            for piece in range((K + WIDTH - 1) // WIDTH):
                _, code = codes_of_piece(start, label, piece, D, K, WIDTH, ROWS)
                counted = (code >= bound) & (code > excluded_code(D))
                if digit > 0:
                    counted = counted & ((code >> (8 * (D - digit))) == prefix)
                value = tl.reshape(digit_of(code, digit, D), [ROWS * WIDTH])
                found += tl.histogram(value, 256, mask=tl.reshape(counted, [ROWS * WIDTH]))
    value = tl.arange(0, 256)
    tl.atomic_add(counts + (this_set * D + digit) * 256 + value, found.to(tl.int64), mask=found > 0, sem="relaxed")
