"""CUDA backend of the fused losses: the host side of the Triton kernels, from the logits to the loss and its gradient.

The host never waits for the device: sizes travel with each launch, by value, and the incoming gradient is read on the
device. So a call can be captured in a CUDA graph. Sums are the same from run to run, because no number is added
atomically. The logits are read twice and the gradient is written once; nothing else of their size is stored.

Launches: DR 3 and 1 (2 and 1 for one set of images), NegOnly 4 and 1, focal loss and cross entropy 3 and 1 (2 and 1 for
one group), forward and backward, for any number of levels and images.

In all functions, levels: [N, R_l, K] of one dtype (float32, bfloat16, float16), contiguous; labels: [N, R] int64 over
all levels' anchors in order. Legend: N images, R anchors of all levels, R_l of one level, K classes, S sets of images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from drloss.kernels.dispatch import PointwiseLoss, Ranking
from drloss.kernels.gpu_layouts import Pass, layout_of

# A weight is at least 2^-64 of the largest that there can be: far from float32's end, 2^-126.
LARGEST_SHIFT = 64.0
# Fused multiply-add is named, because triton warns of a default that is going to change.
_COMBINE: dict[str, Any] = {"BLOCK": 1024, "num_warps": 4, "enable_fp_fusion": True}
_LOG2_E = 1.4426950408889634


class Scores(NamedTuple):
    """Views of the workspace, [S] float64, the workspace itself, and the positives' logits if they were asked for."""

    p_neg: Tensor
    p_pos: Tensor
    work: Tensor
    pos_logits: Tensor | None  # [N, R] float32, 0 where an anchor has no class


@dataclass(frozen=True)
class _Pass:
    """One pass over all levels and images: its grid, the arguments that are the same for every kernel, its options."""

    levels: tuple[Tensor, ...]
    sizes: tuple[int, ...]
    labels: Tensor
    options: dict[str, Any]
    num_strips: int

    @classmethod
    def of(cls, kind: Pass, levels: Sequence[Tensor], labels: Tensor) -> _Pass:
        num_classes = levels[0].shape[2]
        options, entries = layout_of(kind, levels[0].dtype, num_classes)
        num_strips = sum(-(-level.shape[1] * num_classes // entries) for level in levels)
        sizes = _by_value(level.shape[1] for level in levels)
        return cls(tuple(levels), sizes, labels.contiguous(), options, num_strips)

    @property
    def grid(self) -> tuple[int, int]:
        return self.num_strips, len(self.labels)

    def workspace(self, num_state: int, num_sums: int) -> Tensor:
        """Float64: ``num_state`` numbers of the sets, then ``num_sums`` partial sums per strip."""
        return self.labels.new_empty(num_state + num_sums * self.num_strips * len(self.labels), dtype=torch.float64)


def ranking_loss(levels: Sequence[Tensor], labels: Tensor, ranking: Ranking) -> tuple[Tensor, Tensor]:
    """The mean over sets, a scalar float32, and the workspace that ``ranking_gradient`` needs."""
    from drloss.kernels import gpu_ranking as kernels

    first = _Pass.of("sum", levels, labels)
    num_sets = -(-len(labels) // ranking.images_per_set)
    loss = labels.new_empty((), dtype=torch.float32)
    with torch.cuda.device(labels.get_device()):
        work = _combined_scores(first, ranking, loss, num_sets, None)
        sets = num_sets, ranking.images_per_set
        formula = ranking.margin, ranking.parameter, ranking.surrogate
        if ranking.each_positive:
            options = {name: value for name, value in first.options.items() if name != "PAIRED"}
            kernels.rank_positives[first.grid](
                first.levels, first.sizes, first.labels, work, *sets, *formula, **options
            )
            counts = len(labels), first.num_strips, *sets, ranking.sets_per_group
            kernels.combine_positives[1,](work, loss, *counts, *formula, **_COMBINE)
        elif num_sets > 1:
            kernels.add_up[1,](work, loss, num_sets, kernels.LOSS.value, **_COMBINE)
    return loss, work


def ranking_gradient(
    levels: Sequence[Tensor], labels: Tensor, ranking: Ranking, work: Tensor, grad_loss: Tensor
) -> list[Tensor]:
    """One gradient of each level's shape and dtype. grad_loss: a scalar, d / d ``ranking_loss``."""
    each = ranking.surrogate if ranking.each_positive else "expected"
    return _write_gradient(levels, labels, ranking, work, (grad_loss, None, None), each)


def scores(levels: Sequence[Tensor], labels: Tensor, ranking: Ranking, *, pos_logits: bool) -> Scores:
    """P- and P+ of Eq. 6 of each set; 0 and 1 for an empty one."""
    first = _Pass.of("sum", levels, labels)
    num_sets = -(-len(labels) // ranking.images_per_set)
    logits = labels.new_zeros(labels.shape, dtype=torch.float32) if pos_logits else None
    with torch.cuda.device(labels.get_device()):
        work = _combined_scores(first, ranking, None, num_sets, logits)
    return Scores(work[:num_sets], work[num_sets : 2 * num_sets], work, logits)


def scores_gradient(
    levels: Sequence[Tensor],
    labels: Tensor,
    ranking: Ranking,
    work: Tensor,
    *,
    grad_neg: Tensor,
    grad_pos: Tensor,
) -> list[Tensor]:
    """From d / d P-, [S], and either d / d P+, [S], or d / d each positive's logit, [N, R]."""
    each = "given" if grad_pos.dim() == 2 else "expected"
    return _write_gradient(levels, labels, ranking, work, (None, grad_neg.contiguous(), grad_pos.contiguous()), each)


def pointwise_loss(levels: Sequence[Tensor], labels: Tensor, pointwise: PointwiseLoss) -> tuple[Tensor, Tensor]:
    """The mean over groups, a scalar float32, and the workspace that ``pointwise_gradient`` needs."""
    from drloss.kernels import gpu_pointwise as kernels

    first = _Pass.of("sum", levels, labels)
    num_groups = -(-len(labels) // pointwise.images_per_group)
    work = first.workspace(kernels.NUM_STATE.value * num_groups, 2)
    loss = labels.new_empty((), dtype=torch.float32)
    with torch.cuda.device(labels.get_device()):
        kernels.sum_losses[first.grid](
            *(first.levels, first.sizes, first.labels, work, num_groups), *_constants(pointwise), **first.options
        )
        counts = len(labels), first.num_strips, pointwise.images_per_group
        kernels.combine_groups[num_groups,](work, loss, *counts, pointwise.count_images, **_COMBINE)
        if num_groups > 1:
            from drloss.kernels.gpu_ranking import add_up

            add_up[1,](work, loss, num_groups, kernels.LOSS.value, **_COMBINE)
    return loss, work


def pointwise_gradient(
    levels: Sequence[Tensor], labels: Tensor, pointwise: PointwiseLoss, work: Tensor, grad_loss: Tensor
) -> list[Tensor]:
    """One gradient of each level's shape and dtype. grad_loss: a scalar, d / d ``pointwise_loss``."""
    from drloss.kernels import gpu_pointwise as kernels

    second = _Pass.of("write", levels, labels)
    gradients = tuple(torch.empty_like(level) for level in levels)
    with torch.cuda.device(labels.get_device()):
        kernels.write_loss_gradient[second.grid](
            *(second.levels, gradients, second.sizes, second.labels, work, pointwise.images_per_group, grad_loss),
            *_constants(pointwise),
            **second.options,
        )
    return list(gradients)


def _combined_scores(
    first: _Pass, ranking: Ranking, loss: Tensor | None, num_sets: int, pos_logits: Tensor | None
) -> Tensor:
    """The workspace after the first pass, with the loss of each set where it follows from P- and P+ alone."""
    from drloss.kernels import gpu_ranking as kernels

    work = first.workspace(kernels.NUM_STATE.value * num_sets, 6)
    kernels.sum_scores[first.grid](
        *(first.levels, first.sizes, first.labels, work, num_sets, pos_logits),
        *(ranking.inverse_neg, ranking.inverse_pos, _is_shifted(ranking)),
        **first.options,
    )
    kernels.combine_sets[num_sets,](
        *(work, loss, len(first.labels), first.num_strips, ranking.images_per_set, ranking.sets_per_group),
        *(ranking.margin, ranking.parameter, "none" if loss is None or ranking.each_positive else ranking.surrogate),
        **_COMBINE,
    )
    return work


def _write_gradient(
    levels: Sequence[Tensor],
    labels: Tensor,
    ranking: Ranking,
    work: Tensor,
    grads: tuple[Tensor | None, Tensor | None, Tensor | None],
    each: str,
) -> list[Tensor]:
    from drloss.kernels import gpu_ranking as kernels

    second = _Pass.of("write", levels, labels)
    gradients = tuple(torch.empty_like(level) for level in levels)
    num_sets = -(-len(labels) // ranking.images_per_set)
    with torch.cuda.device(labels.get_device()):
        kernels.write_gradient[second.grid](
            *(second.levels, gradients, second.sizes, second.labels, work, num_sets, ranking.images_per_set, *grads),
            *(ranking.inverse_neg, ranking.inverse_pos, ranking.margin, ranking.parameter, each, _is_shifted(ranking)),
            **second.options,
        )
    return list(gradients)


def _is_shifted(ranking: Ranking) -> bool:
    return ranking.inverse_neg * _LOG2_E <= LARGEST_SHIFT


def _by_value(numbers: Iterable[int]) -> tuple[int, ...]:
    """Numbers as a tuple that travels with a launch, without a copy to the device.

    They are sent as odd numbers from 3 on. Triton compiles a kernel anew for a 1 and for multiples of 16; in a tuple
    ``do_not_specialize`` does not prevent that, and each new image size would cost a second.
    """
    return tuple(2 * number + 3 for number in numbers)


def _constants(pointwise: PointwiseLoss) -> tuple[float, float, float, str]:
    """alpha_t of a positive and of a negative entry, gamma, and which way to raise to it."""
    if pointwise.kind == "cross_entropy":
        return 1.0, 1.0, 0.0, "zero"
    gamma = float(pointwise.gamma)
    return pointwise.alpha, 1.0 - pointwise.alpha, gamma, {0.0: "zero", 2.0: "two"}.get(gamma, "any")
