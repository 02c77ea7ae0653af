"""The two passes over the negatives on a CPU: compiled kernels on chunks of fixed size, spread over a few threads.

The kernels spend their time on one table look-up per score, not on arithmetic, so they are scalar. Chunks depend on
sizes only, and partial sums are added in the order of the chunks. So results are equal from run to run and for any
number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from drloss.kernels.cpu import Array, Item, each_block, new_tensor
from drloss.numba_cache import cached_njit
from drloss.pairs.grid import NUM_MOMENTS, Cells

CHUNK = 2**18  # about a millisecond of work
# Logits whose scores a thread holds at a time. From 2^15 on torch would start threads of its own for them.
PIECE = 2**15 - 1


class Rows(NamedTuple):
    """Consecutive anchors of one image, of one level."""

    level: int
    image: int
    rows: slice  # of the level
    anchors: slice  # the same, of all levels together


def moments(values: Tensor, grid: Cells) -> Tensor:
    """Sums of 1, x, x^2, x^3 over the values in each cell, [C, 4] float64. values: [n], float32 or float64."""
    array, table = values.detach().contiguous().numpy(), _table(grid)

    def work(chunk: slice) -> Array:
        found = np.zeros((len(table.edges), NUM_MOMENTS))
        _add_moments(array[chunk], table, found)
        return found

    return _total(work, _slices(len(array), _chunk_size(grid)), grid)


def polynomials(values: Tensor, grid: Cells, coefficients: Tensor) -> Tensor:
    """The cubic of each value's cell at its x; shape and dtype of ``values`` [n]. coefficients: [C, 4] float64."""
    array, table, cubics = values.detach().contiguous().numpy(), _table(grid), coefficients.contiguous().numpy()
    result = new_tensor(values.shape, values.dtype)
    out = result.numpy()
    each_block(lambda chunk: _evaluate(array[chunk], table, cubics, out[chunk]), _slices(len(array), CHUNK))
    return result


def moments_of_logits(levels: Sequence[Tensor], labels: Tensor, images: range, grid: Cells) -> Tensor:
    """``moments`` of p, in float32, of all negatives of some images. levels: contiguous [N, R_l, K]; labels: [N, R]."""
    table, classes = _table(grid), labels.numpy()

    def work(rows: Rows) -> Array:
        found = np.zeros((len(table.edges), NUM_MOMENTS))
        for piece, _, p in _scores(levels, rows):
            _add_moments_of_rows(p, classes[rows.image, piece], table, found)
        return found

    return _total(work, _rows(levels, images, _chunk_size(grid)), grid)


def gradient_of_logits(
    levels: Sequence[Tensor], labels: Tensor, images: range, form: tuple[Cells, Tensor], grads: Sequence[Tensor]
) -> None:
    """Writes the images' part of ``grads`` [N, R_l, K]: cubic times p (1 - p) for a negative, 0 for any other entry.

    form: the grid and its coefficients, [C, 4] float64. The rest as ``moments_of_logits``.
    """
    grid, coefficients = form
    table, classes, cubics = _table(grid), labels.numpy(), coefficients.contiguous().numpy()

    def work(rows: Rows) -> None:
        for piece, part, p in _scores(levels, rows):
            grad = grads[rows.level][rows.image, part]
            out = grad if grad.dtype == torch.float32 else torch.empty(grad.shape)
            _evaluate_rows(p, classes[rows.image, piece], table, cubics, out.numpy())
            if out is not grad:
                grad.copy_(out)

    each_block(work, _rows(levels, images, CHUNK))


def _scores(levels: Sequence[Tensor], chunk: Rows) -> Iterator[tuple[slice, slice, Array]]:
    """Piece by piece: its anchors of all levels, its rows of the level, and its p [r, K], float32."""
    level = levels[chunk.level].detach()[chunk.image]
    num_rows = max(1, PIECE // level.shape[1])
    buffer = torch.empty(min(num_rows, len(level)), level.shape[1])
    for first in range(chunk.rows.start, chunk.rows.stop, num_rows):
        rows = slice(first, min(first + num_rows, chunk.rows.stop))
        offset = chunk.anchors.start - chunk.rows.start
        p = torch.sigmoid(level[rows].float(), out=buffer[: rows.stop - first])
        yield slice(first + offset, rows.stop + offset), rows, p.numpy()


def _rows(levels: Sequence[Tensor], images: range, size: int) -> list[Rows]:
    """Chunks of about ``size`` entries."""
    chunks, offset = [], 0
    for number, level in enumerate(levels):
        for part in _slices(level.shape[1], max(1, size // level.shape[2])):
            anchors = slice(part.start + offset, part.stop + offset)
            chunks += [Rows(number, image, part, anchors) for image in images]
        offset += level.shape[1]
    return chunks


def _slices(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _chunk_size(grid: Cells) -> int:
    """Entries per chunk: so many that the chunk's own table of moments is small beside them."""
    return max(CHUNK, 16 * NUM_MOMENTS * len(grid.edges))


def _total(work: Callable[[Item], Array], chunks: Sequence[Item], grid: Cells) -> Tensor:
    total = np.zeros((len(grid.edges), NUM_MOMENTS))
    for found in each_block(work, chunks):
        total += found
    return torch.from_numpy(total)


class Table(NamedTuple):
    """``Cells`` as a kernel takes them."""

    low: float
    buckets_per_unit: float
    first: Array
    edges: Array
    centres: Array
    scale: float


def _table(grid: Cells) -> Table:
    arrays = grid.first.numpy(), grid.edges.numpy(), grid.centres.numpy()
    return Table(grid.low, grid.buckets_per_unit, *arrays, grid.scale)


_kernel = cached_njit(nogil=True)
_inlined = njit(inline="always")


@_inlined
def _cell(a: float, table: Table) -> Any:
    """The number of edges below a."""
    bucket, last = (a - table.low) * table.buckets_per_unit, len(table.first) - 1
    # Unsigned, because numba checks each index that may be negative. The comparison sends a NaN to the last bucket,
    # where it stays: its sums become NaN, its index is valid.
    cell = np.uintp(table.first[np.uintp(bucket if bucket < last else last)])
    while table.edges[cell] < a:
        cell += np.uintp(1)
    return cell


@_inlined
def _add(a: float, table: Table, out: Array) -> None:
    cell = _cell(a, table)
    x = (a - table.centres[cell]) * table.scale
    square = x * x
    out[cell, 0] += 1.0
    out[cell, 1] += x
    out[cell, 2] += square
    out[cell, 3] += square * x


@_inlined
def _cubic(a: float, table: Table, c: Array) -> Any:
    cell = _cell(a, table)
    x = (a - table.centres[cell]) * table.scale
    return c[cell, 0] + x * (c[cell, 1] + x * (c[cell, 2] + x * c[cell, 3]))


@_kernel
def _add_moments(values: Array, table: Table, out: Array) -> None:
    """Adds to out, [C, 4]."""
    for i in range(len(values)):
        _add(float(values[i]), table, out)


@_kernel
def _evaluate(values: Array, table: Table, c: Array, out: Array) -> None:
    """Writes out, [n]. c: [C, 4]."""
    for i in range(len(values)):
        out[i] = _cubic(float(values[i]), table, c)


@_kernel
def _add_moments_of_rows(p: Array, labels: Array, table: Table, out: Array) -> None:
    """Adds to out, [C, 4]. p: [r, K]; labels: [r]."""
    for row in range(p.shape[0]):
        label = labels[row]
        if label >= -1:  # BACKGROUND or a class; else IGNORED
            for k in range(p.shape[1]):
                if k != label:
                    _add(float(p[row, k]), table, out)


@_kernel
def _evaluate_rows(p: Array, labels: Array, table: Table, c: Array, out: Array) -> None:
    """Writes out, [r, K]. p: [r, K]; labels: [r]; c: [C, 4]."""
    for row in range(p.shape[0]):
        label = labels[row]
        for k in range(p.shape[1]):
            a = float(p[row, k])
            out[row, k] = _cubic(a, table, c) * (a * (1.0 - a)) if label >= -1 and k != label else 0.0
