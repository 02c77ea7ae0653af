"""Which entries a program works on: one launch covers every level of every image, where the head wrote them.

A tile is ``ROWS`` anchors of one level of one image, read in pieces of ``WIDTH`` classes. A label, 8 bytes, is then
read once an anchor, and a thread reads 16 bytes of one anchor at a time: for 80 classes, five pieces of 16. Anchors
padded to a power of two would leave 48 of 128 lanes idle, and entries taken as one long row would need a division and
a label each, 8 bytes for the 4 or 2 of a logit.

Needs triton. Legend: N images, R anchors of all levels, R_l of one level, K classes.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from drloss import labels

IGNORED: tl.constexpr = tl.constexpr(labels.IGNORED)
INTERPRETED: tl.constexpr = tl.constexpr(triton.knobs.runtime.interpret)
LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)


@triton.jit
def number(values: tl.tuple, index: tl.constexpr) -> Any:
    """``values[index]`` as the host encodes it, 2 * number + 3, int32."""
    return (values[index] - 3) // 2


@triton.jit
def number_of_image(values: tl.tuple) -> Any:
    """The number, of one for each image, that belongs to this program's."""
    value = number(values, 0)
    for image in tl.static_range(1, len(values)):
        value = tl.where(tl.program_id(1) == image, number(values, image), value)
    return value


@triton.jit
def find_tile(num_anchors: tl.tuple, ROWS: tl.constexpr) -> Any:
    """Program (tile of an image, image) works on: level, first row in [N * R_l], first in [N * R], number of rows.

    num_anchors: R_l of each level, encoded as ``number`` decodes.
    """
    tile = tl.program_id(0)
    level, first, before, rows, total = 0, 0, 0, 0, 0
    for candidate in tl.static_range(len(num_anchors)):
        in_level = number(num_anchors, candidate)
        start = tile * ROWS
        if (start >= 0) & (start < in_level):
            level, first, before, rows = candidate, start, total, in_level
        tile -= tl.cdiv(in_level, ROWS)
        total += in_level
    image = tl.program_id(1).to(tl.int64)  # times the entries of an image, it can pass 2^31
    return level, image * rows + first, image * total + before + first, tl.minimum(rows - first, ROWS)


@triton.jit
def pick(pointers: tl.tuple, index: tl.tensor) -> Any:
    """The pointer ``pointers[index]``, for an index that is known when the program runs."""
    pointer = pointers[0]
    for candidate in tl.static_range(1, len(pointers)):
        if index == candidate:
            pointer = pointers[candidate]
    return pointer


@triton.jit
def load_labels(labels: tl.tensor, anchor: tl.tensor, rows: tl.tensor, ROWS: tl.constexpr) -> Any:
    """Labels of the tile's anchors, int32 [ROWS]; ``IGNORED`` where there is none."""
    row = tl.arange(0, ROWS)
    return tl.load(labels + anchor + row, mask=row < rows, other=IGNORED).to(tl.int32)


@triton.jit
def piece_of(piece: tl.constexpr, K: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr) -> Any:
    """Classes of a piece, [1, WIDTH], and offsets of its entries in the tile, [ROWS, WIDTH]."""
    column = piece * WIDTH + tl.arange(0, WIDTH)[None, :]
    return column, tl.arange(0, ROWS)[:, None] * K + column


@triton.jit
def entries_of(anchors: tl.tensor, column: tl.tensor, K: tl.constexpr, WIDTH: tl.constexpr) -> Any:
    """Mask of a piece's entries, [ROWS, WIDTH], from a mask of the tile's anchors, [ROWS]."""
    entries = anchors[:, None]
    if K % WIDTH != 0:
        entries = entries & (column < K)
    return entries


@triton.jit
def reciprocal(x: tl.tensor) -> Any:
    """1 / x for x >= 1, 0 for infinity: one instruction, where ``/`` is five for the sake of tiny and huge x."""
    if INTERPRETED:
        return 1.0 / x
    return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, is_pure=True, pack=1)


@triton.jit
def sigmoid(x: tl.tensor) -> Any:
    """1 / (1 + e^-x): 0 and 1 at the infinities."""
    return reciprocal(1.0 + tl.exp2(x * -LOG2_E))
