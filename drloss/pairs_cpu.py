"""The two passes over the negatives on a CPU: compiled kernels on fixed chunks, shared out to a few threads.

Both are bound by the latency of a table look-up a score, so they are scalar. What a chunk holds depends on sizes only
and partial sums are added in the order of the chunks: results are equal from run to run and for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from drloss.pairs_grid import NUM_MOMENTS, Grid

Array: TypeAlias = NDArray[Any]

MIN_CHUNK = 2**16
MAX_CHUNKS = 32


def moments(values: Tensor, grid: Grid) -> Tensor:
    """Sums of 1, x, x^2, x^3 over the values in each cell, [C, 4] float64. values: [n], float32 or float64."""
    array, table = values.detach().contiguous().numpy(), _table(grid)
    # The partial sums of all chunks together stay smaller than the values.
    num_chunks = max(1, min(MAX_CHUNKS, len(array) // MIN_CHUNK, len(array) // (4 * NUM_MOMENTS * len(grid.edges))))
    partial = np.zeros((num_chunks, len(grid.edges), NUM_MOMENTS))
    _for_chunks(lambda chunk, part: _add_moments(array[part], table, partial[chunk]), len(array), num_chunks)
    return torch.from_numpy(partial.sum(axis=0))


def polynomials(values: Tensor, grid: Grid, coefficients: Tensor) -> Tensor:
    """Each value's cell's cubic at its x, of the shape and dtype of ``values`` [n]. coefficients: [C, 4] float64."""
    array, table, cubics = values.detach().contiguous().numpy(), _table(grid), coefficients.contiguous().numpy()
    result = torch.empty(len(array), dtype=values.dtype)
    out = result.numpy()
    num_chunks = max(1, min(MAX_CHUNKS, len(array) // MIN_CHUNK))
    _for_chunks(lambda _, part: _evaluate(array[part], table, cubics, out[part]), len(array), num_chunks)
    return result


def _for_chunks(work: Callable[[int, slice], object], size: int, num_chunks: int) -> None:
    """work(number, slice) for equal chunks of range(size), on as many threads as torch would use."""
    parts = [slice(size * i // num_chunks, size * (i + 1) // num_chunks) for i in range(num_chunks)]
    num_threads = min(torch.get_num_threads(), num_chunks)
    if num_threads == 1:
        for chunk, part in enumerate(parts):
            work(chunk, part)
        return
    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(work, range(num_chunks), parts))  # the list raises what a chunk raised


class Table(NamedTuple):
    """A ``Grid`` as a kernel takes it."""

    low: float
    buckets_per_unit: float
    first: Array
    edges: Array
    centres: Array
    scale: float


def _table(grid: Grid) -> Table:
    arrays = grid.first.numpy(), grid.edges.numpy(), grid.centres.numpy()
    return Table(grid.low, grid.buckets_per_unit, *arrays, grid.scale)


@njit(nogil=True, cache=True, inline="always")
def _cell(a: float, table: Table) -> Any:
    """The number of edges below a."""
    bucket, last = (a - table.low) * table.buckets_per_unit, len(table.first) - 1
    # So ordered that a NaN takes the last bucket and stays there: its sums become NaN, its index never does.
    cell = table.first[int(bucket) if bucket < last else last]
    while table.edges[cell] < a:
        cell += 1
    return cell


@njit(nogil=True, cache=True)
def _add_moments(values: Array, table: Table, out: Array) -> None:
    """Adds to out, [C, 4]."""
    for i in range(len(values)):
        a = float(values[i])
        cell = _cell(a, table)
        x = (a - table.centres[cell]) * table.scale
        square = x * x
        out[cell, 0] += 1.0
        out[cell, 1] += x
        out[cell, 2] += square
        out[cell, 3] += square * x


@njit(nogil=True, cache=True)
def _evaluate(values: Array, table: Table, c: Array, out: Array) -> None:
    """Writes out, [n]. c: [C, 4]."""
    for i in range(len(values)):
        a = float(values[i])
        cell = _cell(a, table)
        x = (a - table.centres[cell]) * table.scale
        out[i] = c[cell, 0] + x * (c[cell, 1] + x * (c[cell, 2] + x * c[cell, 3]))
