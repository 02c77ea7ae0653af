"""The hardest negatives of each set of images, found by reading each logit once; the rest of the work is then small.

On a CPU. Legend: N images, R anchors of all levels together, K classes, S sets of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from drloss.checks import require_positive
from drloss.inputs import Batch, Entries, positives
from drloss.kernels.dispatch import backend_for


class Places(NamedTuple):
    """Where P entries of a batch are: int64 [P] each."""

    image: Tensor
    anchor: Tensor  # of all levels together
    class_: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Places]) -> Places:
        return cls(*map(torch.cat, zip(*parts, strict=True)))


def hardest_entries(batch: Batch, ratio: float | None) -> Entries | None:
    """All positives, and the negatives that ``inputs.mined_negatives`` keeps of each set, in float64: they are few.

    None where there is no backend. ratio: negatives per positive. None keeps the largest negative and all that equal
    it, because they share its gradient.
    """
    if ratio is not None:
        require_positive("hard negative ratio", ratio)
    if batch.labels.device.type != "cpu" or backend_for(batch.levels) is None:
        return None
    image, anchor = positives(batch.labels)
    num_pos = torch.bincount(image // batch.images_per_set, minlength=batch.set_of_image[-1] + 1)
    keep = None if ratio is None else (num_pos * float(ratio)).round().clamp(min=1).tolist()
    negatives = _hardest_negatives(batch, keep)
    places = [*negatives, Places(image, anchor, batch.labels[image, anchor])]
    values = gather(batch.levels, Places.joined(places)).double()
    num_neg = torch.tensor([len(part.image) for part in negatives])
    of_neg, of_pos = values[: num_neg.sum()], values[num_neg.sum() :]
    return Entries(*_padded(of_neg, num_neg), *_padded(of_pos, num_pos))


class _Gather(torch.autograd.Function):
    """The logits of one level at ``index``, [P]. The gradient is 0 elsewhere, in memory that is not even written."""

    @staticmethod
    def forward(ctx: Any, level: Tensor, index: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        ctx.shape, ctx.dtype, ctx.index = level.shape, level.dtype, index
        return level[index]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        from drloss.kernels.cpu import new_tensor

        found = new_tensor(ctx.shape, ctx.dtype, zero=True)
        # Each entry is in one set, as a negative or as a positive, so none is written twice.
        found[ctx.index] = grad
        return found, None


def gather(levels: Sequence[Tensor], places: Places) -> Tensor:
    """The logits at ``places``, [P]."""
    ends = torch.tensor([level.shape[1] for level in levels]).cumsum(0)
    level_of = torch.searchsorted(ends, places.anchor, right=True)
    order = level_of.argsort(stable=True)
    image, anchor, class_ = (part[order] for part in places)
    parts, first = [], 0
    for level, end, num in zip(levels, ends.tolist(), level_of.bincount(minlength=len(levels)).tolist(), strict=True):
        chosen = slice(first, first + num)
        index = image[chosen], anchor[chosen] - (end - level.shape[1]), class_[chosen]
        parts.append(_Gather.apply(level, index))
        first += num
    return torch.cat(parts)[order.argsort()]


def _padded(values: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """[P] values of all sets, one set after the other, as [S, M] with a mask; M is at least 1."""
    mask = torch.arange(max(1, int(sizes.max()))) < sizes.unsqueeze(1)
    return values.new_zeros(mask.shape).masked_scatter(mask, values), mask


def _hardest_negatives(batch: Batch, keep: list[float] | None) -> list[Places]:
    """Those of each set, in the order of its entries."""
    from drloss.kernels.cpu_largest import largest_negatives

    num_classes = batch.levels[0].shape[2]
    levels = [level.detach().contiguous() for level in batch.levels]
    found = []
    for number, images in enumerate(torch.split(torch.arange(len(batch.labels)), batch.images_per_set)):
        members = range(int(images[0]), int(images[-1]) + 1)
        image, entry = largest_negatives(levels, batch.labels, members, None if keep is None else keep[number])
        found.append(Places(image, entry // num_classes, entry % num_classes))
    return found
