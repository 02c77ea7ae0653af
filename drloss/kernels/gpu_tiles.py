"""Which entries a program works on. One launch covers all levels of all images, in place.

A tile is ``ROWS`` anchors of one level of one image, read in pieces of ``WIDTH`` classes (for 80 classes, five pieces
of 16). So a label, 8 bytes, is read once per anchor, and a thread reads 16 bytes of an anchor at a time. With anchors
padded to a power of two, 48 of 128 lanes would be idle; with all entries in one long row, each would need a division
and a label of its own, 8 bytes beside the 4 or 2 of its logit. The kernels count pieces as (K + WIDTH - 1) // WIDTH:
in Triton 3.6, tl.cdiv is no constant when a kernel is compiled.

Needs triton. Legend: N images, R anchors of all levels, R_l of one level, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from drloss import labels

IGNORED: tl.constexpr = tl.constexpr(labels.IGNORED)
INTERPRETED: tl.constexpr = tl.constexpr(triton.knobs.runtime.interpret)
LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)

# With 128 threads per program, each keeps 40 to 64 float32 logits in registers.
_ENTRIES_A_TILE = 8192


class Tiles(NamedTuple):
    """How a launch goes over all levels, from the host's side."""

    levels: tuple[Tensor, ...]  # contiguous
    sizes: tuple[int, ...]  # anchors per level, as ``number`` decodes them
    per_image: int
    layout: dict[str, int]  # K, WIDTH and ROWS


def tiles_of(levels: Sequence[Tensor]) -> Tiles:
    """The tiles of levels [N, R_l, K] of one dtype.

    Sizes travel with a launch by value, as odd numbers from 3 on. Triton compiles a kernel anew for a 1 and for
    multiples of 16; in a tuple ``do_not_specialize`` does not prevent that, and a new image size would cost a second.
    """
    layout = _tile_layout(levels[0].shape[2])
    num = sum(-(-level.shape[1] // layout["ROWS"]) for level in levels)
    contiguous = tuple(level.contiguous() for level in levels)
    return Tiles(contiguous, tuple(2 * level.shape[1] + 3 for level in levels), num, layout)


@cache
def _tile_layout(num_classes: int) -> dict[str, int]:
    """Compile-time sizes of a tile: five to eight pieces per anchor, where there are that many classes.

    For 80 classes: 64 anchors in five pieces of 16, without padding. A piece has at least 4 classes, 16 bytes of
    float32.
    """
    whole, eighth = next_power_of_2(num_classes), next_power_of_2(-(-num_classes // 8))
    width = min(whole, max(4, eighth))
    padded = -(-num_classes // width) * width
    rows = next_power_of_2(_ENTRIES_A_TILE // padded + 1) // 2
    return {"K": num_classes, "WIDTH": width, "ROWS": max(1, rows)}


def next_power_of_2(number: int) -> int:
    return 1 << (number - 1).bit_length()


@triton.jit
def number(values: tl.tuple, index: tl.constexpr) -> Any:
    """``values[index]`` as the host encodes it, 2 * number + 3, int32."""
    return (values[index] - 3) // 2


@triton.jit
def find_tile(num_anchors: tl.tuple, ROWS: tl.constexpr) -> Any:
    """What program (tile, image) works on: level, first row in [N * R_l], first row in [N * R], number of rows.

    num_anchors: R_l of each level, encoded as ``number`` decodes.
    """
    return place_of_tile(num_anchors, tl.program_id(0), tl.program_id(1), ROWS)


@triton.jit
def place_of_tile(num_anchors: tl.tuple, tile: tl.tensor, image: tl.tensor, ROWS: tl.constexpr) -> Any:
    """``find_tile`` for any tile of any image."""
    level, first, before, rows, total = 0, 0, 0, 0, 0
    for candidate in tl.static_range(len(num_anchors)):
        in_level = number(num_anchors, candidate)
        start = tile * ROWS
        if (start >= 0) & (start < in_level):
            level, first, before, rows = candidate, start, total, in_level
        tile -= tl.cdiv(in_level, ROWS)
        total += in_level
    image = image.to(tl.int64)  # times the entries per image it can exceed 2^31
    return level, image * rows + first, image * total + before + first, tl.minimum(rows - first, ROWS)


@triton.jit
def pick(pointers: tl.tuple, index: tl.tensor) -> Any:
    """``pointers[index]``, for an index that is known only when the program runs."""
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
def piece_of(piece: tl.tensor, K: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr) -> Any:
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
    """1 / x for x >= 1, 0 for infinity. One instruction, where ``/`` takes five to be exact for tiny and huge x."""
    if INTERPRETED:
        return 1.0 / x
    return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, is_pure=True, pack=1)


@triton.jit
def sigmoid(x: tl.tensor) -> Any:
    """1 / (1 + e^-x): 0 and 1 at the infinities."""
    return reciprocal(1.0 + tl.exp2(x * -LOG2_E))
