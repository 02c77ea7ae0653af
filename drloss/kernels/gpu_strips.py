"""Which entries a program works on: a strip, that is consecutive entries of one level of one image, read in place.

A strip is ``STEPS`` blocks of ``CHUNKS`` chunks of ``VECTOR`` entries, one after the other in memory. A chunk is what a
thread reads at once, at most 16 bytes, and never crosses an anchor's end; so each warp reads 512 bytes in a row, and
finds the anchor, and its label, once per chunk instead of once per entry. The labels come from the first-level cache:
an anchor's chunks are neighbours. (Tiles of whole anchors, as in ``gpu_tiles``, are read in pieces of 32 or 64 bytes
with gaps between them, which showed in the bandwidth.)

A positive entry belongs to the strip that holds it. There are few, so a strip finds its own by one look at the labels
of its ``ROWS`` anchors, and treats them apart: no entry has to ask whether it is one.

Needs triton. Legend: N images, R anchors of all levels, R_l of one level, K classes.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from drloss.kernels.gpu_tiles import IGNORED, INTERPRETED, LOG2_E, number, pick, reciprocal


@triton.jit
def find_strip(
    num_anchors: tl.tuple, K: tl.constexpr, VECTOR: tl.constexpr, CHUNKS: tl.constexpr, STEPS: tl.constexpr
) -> Any:
    """What program (strip, image) works on: five numbers.

    The level; the strip's first chunk and the number of chunks, both of this image and level; the image's first entry
    in [N * R_l * K]; the level's first anchor of this image in [N * R]. num_anchors: R_l, as ``number`` decodes them.
    """
    strip = tl.program_id(0)
    level, first, before, rows, total = 0, 0, 0, 0, 0
    for candidate in tl.static_range(len(num_anchors)):
        in_level = number(num_anchors, candidate)
        chunks = in_level * (K // VECTOR)
        start = strip * (CHUNKS * STEPS)
        if (start >= 0) & (start < chunks):
            level, first, before, rows = candidate, start, total, in_level
        strip -= tl.cdiv(chunks, CHUNKS * STEPS)
        total += in_level
    image = tl.program_id(1).to(tl.int64)  # times the entries per image it can exceed 2^31
    return level, first, rows * (K // VECTOR), image * rows * K, image * total + before


@triton.jit
def start_of(pointers: tl.tuple, level: tl.tensor, image: tl.tensor, first: tl.tensor, VECTOR: tl.constexpr) -> Any:
    """Pointer to the strip's first entry, among one pointer per level."""
    return pick(pointers, level) + image + first.to(tl.int64) * VECTOR


@triton.jit
def chunk_labels(
    labels: tl.tensor,
    first: tl.tensor,
    num_chunks: tl.tensor,
    step: tl.tensor,
    K: tl.constexpr,
    VECTOR: tl.constexpr,
    CHUNKS: tl.constexpr,
) -> Any:
    """Of a block's chunks, [CHUNKS, 1] each: whether it exists, whether it counts (is not ignored), its label's place.

    The place is where the label's class would stand in the chunk: 0 .. VECTOR - 1 if it does. labels: of this image and
    level.
    """
    chunk = first + step * CHUNKS + tl.arange(0, CHUNKS)
    row = chunk // (K // VECTOR)
    exists = chunk < num_chunks
    label = tl.load(labels + row, mask=exists, other=IGNORED).to(tl.int32)
    place = label - (chunk - row * (K // VECTOR)) * VECTOR
    return exists[:, None], (label != IGNORED)[:, None], place[:, None]


@triton.jit
def block_offsets(step: tl.tensor, VECTOR: tl.constexpr, CHUNKS: tl.constexpr) -> Any:
    """Places of a block's entries in the strip, [CHUNKS, VECTOR]."""
    return (step * CHUNKS + tl.arange(0, CHUNKS))[:, None] * VECTOR + tl.arange(0, VECTOR)[None, :]


@triton.jit
def own_entries(
    labels: tl.tensor,
    first: tl.tensor,
    num_chunks: tl.tensor,
    K: tl.constexpr,
    VECTOR: tl.constexpr,
    CHUNKS: tl.constexpr,
    STEPS: tl.constexpr,
    ROWS: tl.constexpr,
) -> Any:
    """Of the strip's anchors, [ROWS] each: the row of this image and level, its own entry's place in the strip, a mask.

    The mask is true for a positive anchor whose own entry lies in this strip. A label >= K (only the host could refuse
    it) must not read another anchor's logit.
    """
    top = first // (K // VECTOR)
    row = tl.arange(0, ROWS)
    exists = top + row < num_chunks // (K // VECTOR)
    label = tl.load(labels + top + row, mask=exists, other=IGNORED).to(tl.int32)
    place = row * K + label - (first - top * (K // VECTOR)) * VECTOR
    own = (label >= 0) & (label < K) & (place >= 0) & (place < CHUNKS * STEPS * VECTOR)
    return top + row, place, own


@triton.jit
def reciprocals(x: tl.tensor, PAIRED: tl.constexpr) -> Any:
    """1 / x for x >= 1. PAIRED: of two entries of a thread by one division, 1 / a = b / (a b); a b must be finite.

    The units for exponentials and divisions give 16 results per clock and multiprocessor, an eighth of what others do.
    In half precision they are the limit, not the memory.
    """
    if PAIRED and not INTERPRETED:
        return tl.inline_asm_elementwise(
            "{ .reg .f32 r; mul.f32 r, $2, $3; rcp.approx.ftz.f32 r, r; mul.f32 $0, r, $3; mul.f32 $1, r, $2; }",
            "=&f,=&f,f,f",
            [x],
            tl.float32,
            is_pure=True,
            pack=2,
        )
    return reciprocal(x)


@triton.jit
def sigmoids(x: tl.tensor, PAIRED: tl.constexpr) -> Any:
    """1 / (1 + e^-x). PAIRED: 2e-19 for all x below -43, so that the product of two 1 + e^-x is finite."""
    if PAIRED:
        x = tl.maximum(x, -43.0, propagate_nan=tl.PropagateNan.ALL)
    return reciprocals(1.0 + tl.exp2(x * -LOG2_E), PAIRED)
