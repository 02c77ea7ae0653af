"""The losses' two passes over the logits on a CPU: blocks of anchors, spread over as many threads as torch has.

What a block holds depends on the sizes only, and partial sums are added in the blocks' order. So results are equal from
run to run and for any number of threads. Half precision is converted block by block, while it is in the cache.
Legend: N images, R anchors of all levels together, K classes, S sets of images.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drloss.kernels import cpu_loops as compiled
from drloss.kernels.dispatch import Pointwise

Array: TypeAlias = NDArray[Any]
Item = TypeVar("Item")
Result = TypeVar("Result")

BLOCK_ENTRIES = 2**19  # less than half a millisecond of work
HUGE_BYTES = 2**22  # from this size on numpy asks for huge pages


class Block(NamedTuple):
    """Consecutive anchors of one image, or all anchors of some images, of one level."""

    level: int
    images: slice
    entries: slice  # of the level's R_l * K
    anchor: int  # the first, among all levels' anchors

    @property
    def corner(self) -> tuple[int, int]:
        """Where the block starts in [N, R]."""
        return self.images.start, self.anchor

    @property
    def num_images(self) -> int:
        return int(self.images.stop - self.images.start)


def reduce_negatives(
    levels: Sequence[Tensor], labels: Tensor, set_of_image: Sequence[int], inverse_lambda: float
) -> tuple[Tensor, Tensor, Tensor]:
    """P- [S]; log of sum_j exp(p_j / lambda) over the negatives [S]; pos_logits [N, R].

    The first two are float64, and 0 without negatives. pos_logits: float32, the logit of each anchor's own class, 0
    where there is none.
    """
    arrays, classes, num_classes = as_arrays(levels), labels.contiguous().numpy(), levels[0].shape[2]
    pos_logits = torch.empty(labels.shape, dtype=torch.float32)
    pos, inverse = pos_logits.numpy(), np.float32(inverse_lambda)

    def work(block: Block) -> Array:
        found = np.empty((block.num_images, 3))
        compiled.reduce_block(block_logits(arrays, block), classes, block.corner, num_classes, inverse, found, pos)
        return found

    blocks = list(_blocks(levels))
    shift, weights, products = np.concatenate(each_block(work, blocks)).T
    sets = _sets(blocks, set_of_image)
    largest = np.zeros(set_of_image[-1] + 1)
    np.maximum.at(largest, sets, shift)
    relative = np.exp(shift - largest[sets])
    weight, product = (_add(part * relative, sets) for part in (weights, products))
    filled = np.where(weight == 0, 1.0, weight)
    log_normalizer = np.where(weight == 0, 0.0, largest + np.log(filled))
    return torch.from_numpy(product / filled), torch.from_numpy(log_normalizer), pos_logits


def negatives_gradient(
    levels: Sequence[Tensor],
    labels: Tensor,
    set_of_image: Sequence[int],
    inverse_lambda: float,
    expected_neg: Tensor,
    log_normalizer: Tensor,
    grad_neg: Tensor,
    grad_pos: Tensor,
) -> list[Tensor]:
    """The gradient by each level, in its dtype. Of a negative: grad_neg * q_j (1 + (p_j - P-) / lambda) p_j (1 - p_j).

    Of the entry of an anchor's own class: grad_pos [N, R]. Of an ignored anchor: 0. The rest as ``reduce_negatives``.
    """
    classes, num_classes, pos = labels.contiguous().numpy(), levels[0].shape[2], grad_pos.contiguous().numpy()
    scalars = torch.stack([expected_neg, log_normalizer, grad_neg.double()], dim=1).numpy()[list(set_of_image)]
    inverse = np.float32(inverse_lambda)

    def work(block: Block, logits: Array, grad: Array) -> None:
        compiled.gradient_block(logits, classes, block.corner, num_classes, inverse, scalars, pos, grad)

    return _gradients(work, levels)


def pointwise_sum(
    levels: Sequence[Tensor],
    labels: Tensor,
    group_of_image: Sequence[int],
    kind: Pointwise,
    alpha: float,
    gamma: float,
) -> Tensor:
    """Sum of the focal losses or cross entropies of all entries that are not ignored, by group of images: float64."""
    arrays, classes, num_classes = as_arrays(levels), labels.contiguous().numpy(), levels[0].shape[2]
    exponent, weights = _constants(kind, alpha, gamma)

    def work(block: Block) -> Array:
        found = np.empty(block.num_images)
        logits = block_logits(arrays, block)
        compiled.loss_block(logits, classes, block.corner, num_classes, exponent, weights, found)
        return found

    blocks = list(_blocks(levels))
    return torch.from_numpy(_add(np.concatenate(each_block(work, blocks)), _sets(blocks, group_of_image)))


def pointwise_gradient(
    levels: Sequence[Tensor],
    labels: Tensor,
    group_of_image: Sequence[int],
    kind: Pointwise,
    alpha: float,
    gamma: float,
    scale: Tensor,
) -> list[Tensor]:
    """The gradient of ``pointwise_sum`` by each level, times the ``scale`` of its group."""
    classes, num_classes = labels.contiguous().numpy(), levels[0].shape[2]
    exponent, weights = _constants(kind, alpha, gamma)
    scales = np.outer(scale.double().numpy()[list(group_of_image)], weights).astype(np.float32)

    def work(block: Block, logits: Array, grad: Array) -> None:
        compiled.slope_block(logits, classes, block.corner, num_classes, exponent, scales, grad)

    return _gradients(work, levels)


def _constants(kind: Pointwise, alpha: float, gamma: float) -> tuple[np.float32, tuple[float, float]]:
    """The exponent gamma, and the weights of negatives and positives."""
    return (np.float32(gamma), (1.0 - alpha, float(alpha))) if kind == "focal" else (np.float32(0), (1.0, 1.0))


def _gradients(work: Callable[[Block, Array, Array], None], levels: Sequence[Tensor]) -> list[Tensor]:
    """New tensors like ``levels``; ``work`` fills each block from the block's logits, float32 [n, r * K]."""
    grads = [new_tensor(level.shape, level.dtype) for level in levels]
    arrays, targets = as_arrays(levels), as_arrays(grads)

    def fill(block: Block) -> None:
        logits, target = block_logits(arrays, block), targets[block.level][block.images, block.entries]
        if isinstance(target, Tensor):
            grad = np.empty_like(logits)
            work(block, logits, grad)
            _convert(torch.from_numpy(grad), target)
        else:
            work(block, logits, target)

    each_block(fill, list(_blocks(levels)))
    return grads


def new_tensor(shape: torch.Size, dtype: torch.dtype, *, zero: bool = False) -> Tensor:
    """``torch.empty`` or ``torch.zeros``, but in huge pages, which the system hands out three times as fast.

    Zeros take no time, and memory only where they are written: the system hands out zeroed pages when they are touched.
    """
    num_bytes = shape.numel() * dtype.itemsize
    if num_bytes < HUGE_BYTES:
        return torch.zeros(shape, dtype=dtype) if zero else torch.empty(shape, dtype=dtype)
    memory = (np.zeros if zero else np.empty)(num_bytes + 64, np.uint8)
    start = -memory.ctypes.data % 64  # aligned as torch does it
    return torch.from_numpy(memory[start : start + num_bytes]).view(dtype).view(shape)


def _blocks(levels: Sequence[Tensor]) -> Iterator[Block]:
    before = 0
    for number, level in enumerate(levels):
        num_images, num_rows, num_classes = level.shape
        images = max(1, BLOCK_ENTRIES // max(1, num_rows * num_classes))
        rows = max(1, BLOCK_ENTRIES // num_classes if images == 1 else num_rows)
        for image in range(0, num_images, images):
            chosen = slice(image, min(image + images, num_images))
            for row in range(0, num_rows, rows):
                entries = slice(row * num_classes, min(row + rows, num_rows) * num_classes)
                yield Block(number, chosen, entries, before + row)
        before += num_rows


def each_block(work: Callable[[Item], Result], blocks: Sequence[Item]) -> list[Result]:
    """The results in the blocks' order. The compiled loops release the GIL, so plain threads suffice."""
    num_threads = min(torch.get_num_threads(), len(blocks))
    return list(map(work, blocks) if num_threads < 2 else _pool(num_threads).map(work, blocks))


@lru_cache(maxsize=1)
def _pool(num_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(num_threads, thread_name_prefix="drloss")


# A child process has none of its parent's threads.
os.register_at_fork(after_in_child=_pool.cache_clear)


def as_arrays(levels: Sequence[Tensor]) -> list[Array | Tensor]:
    """Contiguous levels as [N, R_l * K] without a copy.

    numpy arrays; half precision stays a tensor, because numpy has no bfloat16.
    """
    flat = [level.detach().flatten(1) for level in levels]
    return [level.numpy() if level.dtype == torch.float32 else level for level in flat]


def block_logits(arrays: Sequence[Array | Tensor], block: Block) -> Array:
    """A block's logits, float32 [n, r * K]."""
    part = arrays[block.level][block.images, block.entries]
    return _convert(part, torch.empty(part.shape)).numpy() if isinstance(part, Tensor) else part


def _convert(source: Tensor, target: Tensor) -> Tensor:
    """Copy piece by piece: for longer pieces torch would start threads of its own in each of ours."""
    for old, new in zip(torch.split(source.view(-1), 2**14), torch.split(target.view(-1), 2**14), strict=True):
        new.copy_(old)
    return target


def _sets(blocks: Sequence[Block], set_of_image: Sequence[int]) -> Array:
    """The set of each image of each block."""
    return np.concatenate([np.asarray(set_of_image[block.images]) for block in blocks])


def _add(values: Array, sets: Array) -> Array:
    """Sums by set, added one after the other."""
    return np.bincount(sets, weights=values)
