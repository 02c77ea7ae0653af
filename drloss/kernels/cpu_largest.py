"""The largest negatives of a set of images on a CPU. Only logits above a bound are kept, which rises on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from drloss.kernels.cpu import Array, Block, as_arrays, block_logits, each_block
from drloss.kernels.cpu_loops import negative_runs
from drloss.numba_cache import cached_njit

BLOCK_ENTRIES = 2**20
MIN_BUFFER = 4096
PIECE = 512  # entries that are searched at a time


def largest_negatives(
    levels: Sequence[Tensor], labels: Tensor, images: range, keep: float | None
) -> tuple[Tensor, Tensor]:
    """The ``keep`` negatives of largest logit: their images and entries, int64 [P], in order. Of equal ones the first.

    An entry's number is anchor * K + class, with anchors counted over all levels of the image. levels: contiguous
    [N, R_l, K] without gradient. keep: None means the largest one and all that equal it.
    """
    num_classes, classes, arrays = levels[0].shape[2], labels.contiguous().numpy(), as_arrays(levels)
    num_kept = int(min(keep or 1, len(images) * labels.shape[1] * num_classes))

    def work(block: Block) -> Array:
        logits = block_logits(arrays, block)[0]
        own = classes[block.images.start, block.anchor : block.anchor + len(logits) // num_classes]
        runs = negative_runs(own, num_classes)
        values, entries = _largest_of_block(logits, runs, num_kept)
        if keep is None and len(values) and np.isfinite(values[0]):
            values, entries = _collect_all(logits, runs, np.nextafter(values[0], np.float32(-np.inf)))
        return np.stack([values, np.full(len(values), block.images.start), entries + block.anchor * num_classes])

    values, image, entries = np.concatenate(each_block(work, list(_blocks(levels, images))), axis=1)
    # Not smaller, rather than equal: NaN stays.
    chosen = np.flatnonzero(~(values < values.max(initial=-np.inf))) if keep is None else _largest(values, num_kept)
    return torch.from_numpy(image[chosen].astype(np.int64)), torch.from_numpy(entries[chosen].astype(np.int64))


def _largest_of_block(logits: Array, runs: Array, num_kept: int) -> tuple[Array, Array]:
    """Values and entries of at most ``num_kept`` negatives, by entry."""
    size = min(num_kept + max(num_kept, MIN_BUFFER), logits.size + PIECE)
    values, entries = np.empty(size, np.float32), np.empty(size, np.int64)
    held, start, bound = 0, 0, np.float32(np.nan)
    while start < logits.size:
        rest = values[held:], entries[held:]
        found, start = _collect_larger(logits, runs, start, bound, *rest)
        held += found
        if held > num_kept:
            chosen = _largest(values[:held], num_kept)
            values[:num_kept], entries[:num_kept] = values[:held][chosen], entries[:held][chosen]
            # Of equal logits the first is kept, so from here on only larger ones count.
            held, bound = num_kept, values[:num_kept].min()
    return values[:held], entries[:held]


def _largest(values: Array, num_kept: int) -> Array:
    """Indices of the ``num_kept`` largest, in order; of equal ones the first. NaN is the largest."""
    if len(values) <= num_kept:
        return np.arange(len(values))
    bound = np.partition(values, -num_kept)[-num_kept]
    larger = np.flatnonzero(np.isnan(values) if np.isnan(bound) else ~(values <= bound))[:num_kept]
    equal = np.flatnonzero(values == bound)[: num_kept - len(larger)]
    return np.sort(np.concatenate([larger, equal]))


def _collect_all(logits: Array, runs: Array, bound: np.float32) -> tuple[Array, Array]:
    """Values and entries of all negatives above ``bound``."""
    values, entries = np.empty(logits.size, np.float32), np.empty(logits.size, np.int64)
    count, _ = _collect_larger(logits, runs, 0, bound, values, entries)
    return values[:count], entries[:count]


def _blocks(levels: Sequence[Tensor], images: range) -> Iterator[Block]:
    """Blocks of one image each, in the order of the entries."""
    num_classes = levels[0].shape[2]
    rows = max(1, BLOCK_ENTRIES // num_classes)
    for image in images:
        before = 0
        for number, level in enumerate(levels):
            for row in range(0, level.shape[1], rows):
                entries = slice(row * num_classes, min(row + rows, level.shape[1]) * num_classes)
                yield Block(number, slice(image, image + 1), entries, before + row)
            before += level.shape[1]


_kernel = cached_njit(error_model="numpy", nogil=True)


@_kernel
def _count_larger(logits: Array, bound: Any) -> Any:
    count = np.int32(0)
    for j in range(logits.size):
        count += np.int32(not logits[j] <= bound)
    return count


@_kernel
def _collect_larger(
    logits: Array, runs: Array, start: int, bound: Any, values: Array, entries: Array
) -> tuple[int, int]:
    """Negatives above ``bound`` among ``logits`` [r * K], from entry ``start`` on, until ``values`` is full.

    Returns how many were found, and the entry to go on from. NaN is above everything, and everything is above NaN.
    runs: as ``negative_runs`` gives them; values: float32, entries: int64, both [at least PIECE].
    """
    count = 0
    for k in range(runs.shape[0]):
        for first in range(max(runs[k, 0], start), runs[k, 1], PIECE):
            end = min(first + PIECE, runs[k, 1])
            larger = _count_larger(logits[first:end], bound)
            if count + larger > values.size:
                return count, first
            if larger > 0:
                for j in range(first, end):
                    if not logits[j] <= bound:
                        values[count], entries[count] = logits[j], j
                        count += 1
    return count, logits.size
