"""All pairs straight from the logits: two passes over them, and nothing of their size but the gradient.

On a CPU; ``from_logits_gpu`` does it on CUDA. Legend: N images, R anchors of all levels together, K classes, S sets of
consecutive images that are ranked together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from drloss.inputs import positives
from drloss.labels import IGNORED
from drloss.pairs import from_logits_gpu
from drloss.pairs.grid import Knots, Nodes, PairSums, piecewise
from drloss.surrogates import Surrogate


class _Set(NamedTuple):
    """The images of a set, and its positives."""

    images: range
    own: Tensor  # [n+, 3]: image, anchor, class
    scores: Tensor  # [n+] float64, p of the positives
    num_neg: int
    form: Nodes | Knots


def pair_means(
    levels: Sequence[Tensor], labels: Tensor, *, margin: float, surrogate: Surrogate, images_per_set: int = 1
) -> Tensor | None:
    """The mean over all pairs of each set, [S] float64, as ``mean.pair_mean`` of its scores; differentiable once.

    An empty set stands for one constant perfect score, see ``functional.distributional``. levels: each [N, R_l, K];
    labels: [N, R]. None where this is no help: another device, float64, another
    surrogate, or few negatives.
    """
    if levels[0].device.type == "cuda":
        return from_logits_gpu.pair_means(
            levels, labels, margin=margin, surrogate=surrogate, images_per_set=images_per_set
        )
    if any(level.device.type != "cpu" or level.dtype == torch.float64 for level in levels):
        return None
    levels = [level.contiguous() for level in levels]
    sets = []
    for first in range(0, len(labels), images_per_set):
        images = range(first, min(first + images_per_set, len(labels)))
        found = _set(levels, labels, images, margin, surrogate)
        if found is None:
            return None
        sets.append(found)
    means: Tensor = _PairMeans.apply(sets, labels, *levels)
    return means


def _set(levels: Sequence[Tensor], labels: Tensor, images: range, margin: float, surrogate: Surrogate) -> _Set | None:
    """The set of ``images``; None where the linear way is no help."""
    labels = labels[images.start : images.stop]
    image, anchor = positives(labels)
    own = torch.stack([image + images.start, anchor, labels[image, anchor]], dim=1)
    num_neg = int(np.count_nonzero(labels.numpy() != IGNORED)) * levels[0].shape[2] - len(own)
    scores = torch.empty(len(own), dtype=torch.float64)
    for level, here, entry in _by_level(levels, own):
        scores[here] = level.detach()[entry].double().sigmoid()
    b = margin - scores if len(own) else scores.new_tensor([margin - 1.0])
    form = piecewise(surrogate, b, (0.0, 1.0), num_neg)
    return None if form is None else _Set(images, own, scores, num_neg, form)


def _by_level(levels: Sequence[Tensor], own: Tensor) -> list[tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]]:
    """For each level: the level, which rows of ``own`` lie in it, and these rows as an index into it."""
    found, offset = [], 0
    for level in levels:
        here = ((own[:, 1] >= offset) & (own[:, 1] < offset + level.shape[1])).nonzero().squeeze(1)
        image, anchor, label = own[here].unbind(1)
        found.append((level, here, (image, anchor - offset, label)))
        offset += level.shape[1]
    return found


class _PairMeans(torch.autograd.Function):
    """The means from the moments of the negatives' scores; the backward pass computes the scores once more."""

    @staticmethod
    def forward(ctx: Any, sets: Sequence[_Set], labels: Tensor, *levels: Tensor) -> Tensor:
        from drloss.pairs.passes_cpu import moments_of_logits  # it needs numba, which is slow to import

        sums = [s.form.sums(moments_of_logits(levels, labels, s.images, s.form.grid)) for s in sets]
        ctx.save_for_backward(labels, *levels)
        ctx.sets, ctx.sums = sets, sums
        return torch.stack([each.total / _num_pairs(s) for s, each in zip(sets, sums, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from drloss.kernels.cpu import new_tensor
        from drloss.pairs.passes_cpu import gradient_of_logits

        labels, *levels = ctx.saved_tensors
        grads = [new_tensor(level.shape, level.dtype) for level in levels]
        each: PairSums
        for s, each, scale in zip(ctx.sets, ctx.sums, grad, strict=True):
            scale = scale / _num_pairs(s)
            gradient_of_logits(levels, labels, s.images, (s.form.grid, each.slopes * scale), grads)
            by_logit = each.grad_positives[: len(s.own)] * scale * -s.scores * (1.0 - s.scores)
            for level, here, entry in _by_level(grads, s.own):
                level[entry] = by_logit[here].to(level.dtype)
        return None, None, *grads


def _num_pairs(s: _Set) -> int:
    return s.num_neg * max(1, len(s.own))
