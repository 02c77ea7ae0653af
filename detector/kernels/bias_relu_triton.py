"""Triton kernels of what follows a convolution: bias, residual and ReLU in one pass, their gradients in another.

A feature map of C channels is read as its M = N * H * W pixels in channels last, [M, C]: the channel runs fastest. A
tile is ``ROWS`` pixels by ``WIDTH`` channels, of which a thread reads 16 bytes at a time where C allows it.

A NaN stays a NaN, as in torch: a ReLU keeps what is not <= 0.

Needs triton.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

_SIZES = ["num_rows", "height", "width", "rows_per_part", "num_parts"]


@triton.jit
def columns_of(tile: tl.tensor, C: tl.constexpr, WIDTH: tl.constexpr) -> Any:
    """Channels of a tile, [1, WIDTH]. Tiles beside each other in memory follow each other."""
    return (tile % ((C + WIDTH - 1) // WIDTH)) * WIDTH + tl.arange(0, WIDTH)[None, :]


@triton.jit
def inside(rows: tl.tensor, columns: tl.tensor, num_rows: tl.tensor, C: tl.constexpr, WIDTH: tl.constexpr) -> Any:
    """Mask of a tile's entries that exist, [ROWS, WIDTH] or, where all columns do, [ROWS, 1]."""
    mask = rows < num_rows
    if C % WIDTH != 0:
        mask = mask & (columns < C)
    return mask


@triton.jit(do_not_specialize=_SIZES)
def add_bias(
    y: tl.tensor,
    bias: tl.tensor,
    other: tl.tensor,
    num_rows: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    C: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    OTHER: tl.constexpr,
    RELU: tl.constexpr,
) -> None:
    """y [M, C] becomes y + bias [+ other] [, then ReLU], in float32, rounded once.

    OTHER: "none"; "same" for a map of y's shape; "coarse" for one of half the height and width, each pixel of which
    belongs to four of y's.
    """
    pieces: tl.constexpr = (C + WIDTH - 1) // WIDTH
    tile = tl.program_id(0)
    column = columns_of(tile, C, WIDTH)
    first = (tile // pieces) * ROWS
    local = tl.arange(0, ROWS)[:, None]
    mask = inside(first + local, column, num_rows, C, WIDTH)
    start = first.to(tl.int64) * C  # beyond 2^31 for some hundred images
    place = y + start + (local * C + column)
    values = tl.load(place, mask=mask).to(tl.float32)
    values += tl.load(bias + column, mask=column < C).to(tl.float32)
    if OTHER == "same":
        values += tl.load(other + start + (local * C + column), mask=mask).to(tl.float32)
    if OTHER == "coarse":
        row = first + local
        line = row // width
        image = line // height
        coarse_line = image * (height // 2) + (line % height) // 2
        coarse_row = coarse_line * (width // 2) + (row % width) // 2
        values += tl.load(other + coarse_row.to(tl.int64) * C + column, mask=mask).to(tl.float32)
    if RELU:
        values = tl.where(values <= 0, 0.0, values)
    tl.store(place, values.to(y.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=_SIZES)
def mask_and_sum(
    grad: tl.tensor,
    y: tl.tensor,
    masked: tl.tensor,
    partials: tl.tensor,
    num_rows: tl.tensor,
    rows_per_part: tl.tensor,
    C: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    RELU: tl.constexpr,
    SUM: tl.constexpr,
) -> None:
    """The gradient before the ReLU that gave y, all [M, C], and the bias gradient's parts [parts, C] float32.

    RELU: whether there was one; if not, ``masked`` is not written. SUM: whether the bias needs a gradient.
    rows_per_part: a multiple of ROWS.
    """
    pieces: tl.constexpr = (C + WIDTH - 1) // WIDTH
    tile = tl.program_id(0)
    part = tile // pieces
    column = columns_of(tile, C, WIDTH)
    local = tl.arange(0, ROWS)[:, None]
    total = tl.zeros([ROWS, WIDTH], tl.float32)
    for first in range(part * rows_per_part, tl.minimum((part + 1) * rows_per_part, num_rows), ROWS):
        mask = inside(first + local, column, num_rows, C, WIDTH)
        start = tl.cast(first, tl.int64) * C
        offsets = local * C + column
        values = tl.load(grad + start + offsets, mask=mask, other=0.0)
        if RELU:
            active = tl.load(y + start + offsets, mask=mask, other=0.0)
            values = tl.where(active <= 0, 0.0, values)
            tl.store(masked + start + offsets, values, mask=mask)
        if SUM:
            total += values.to(tl.float32)
    if SUM:
        sums = tl.sum(total, axis=0)
        channel = (tile % pieces) * WIDTH + tl.arange(0, WIDTH)
        tl.store(partials + part * C + channel, sums, mask=channel < C)


@triton.jit(do_not_specialize=_SIZES)
def combine_parts(
    partials: tl.tensor,
    sums: tl.tensor,
    num_parts: tl.tensor,
    C: tl.constexpr,
    COLUMNS: tl.constexpr,
    PARTS: tl.constexpr,
) -> None:
    """Sums over the parts, [parts, C] -> [C] float32, in an order that only their number decides."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros([PARTS, COLUMNS], tl.float32)
    for first in range(0, num_parts, PARTS):
        part = first + tl.arange(0, PARTS)[:, None]
        mask = (part < num_parts) & (column < C)[None, :]
        total += tl.load(partials + part * C + column[None, :], mask=mask, other=0.0)
    tl.store(sums + column, tl.sum(total, axis=0), mask=column < C)
