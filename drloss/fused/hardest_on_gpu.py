"""The hardest negatives on CUDA: found, summed and differentiated in a few launches, none of which is waited for.

All logits are read once; the gradient is written once. Besides it, there are a few numbers per tile (5,120 entries for
80 classes), and one per anchor. ``kernels.gpu_largest`` says how. Legend: N images, R anchors of all levels, S sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from drloss.checks import require_positive
from drloss.fused.two_passes import SMALLEST_LAMBDA
from drloss.inputs import Batch
from drloss.kernels.dispatch import backend_for

Kind: TypeAlias = Literal["scores", "ranking", "cross_entropy", "extremes"]

# Bits of the logits' codes, by 8: the low bits of a half-precision number's float32 are 0.
_DIGITS = {torch.float32: 4, torch.float16: 3, torch.bfloat16: 2}
_GROUPS = 8  # per tile
_AT_ONCE = 4096
# Enough to fill a GPU; each takes several tiles if there are more.
_PROGRAMS = 2048
# Fused multiply-add is named, because triton warns of a default that is going to change.
_OPTIONS: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": True}
_ALONE: dict[str, Any] = {"num_warps": 16, "enable_fp_fusion": True}


def expected_negative(batch: Batch, lambda_neg: float, ratio: float) -> tuple[Tensor, Tensor, Tensor] | None:
    """As ``two_passes.expected_negative``, over the negatives that ``inputs.mined_negatives`` keeps.

    None where there are no kernels for the batch: not on CUDA, float64, or a lambda below ``SMALLEST_LAMBDA``.
    """
    require_positive("lambda", lambda_neg, or_inf=True)
    require_positive("hard negative ratio", ratio)
    if not _has_kernels(batch) or lambda_neg < SMALLEST_LAMBDA:
        return None
    plan = _plan(batch, "scores", ratio, inverse_neg=1.0 / lambda_neg)
    expected, pos_logits = _ExpectedNegative.apply(plan, *batch.levels)
    return expected, batch.by_set(pos_logits, 0.0), batch.by_set(batch.labels >= 0, False)


def expected_values(
    batch: Batch, *, lambda_pos: float, lambda_neg: float, ratio: float
) -> tuple[Tensor, Tensor] | None:
    """P- of the negatives that are kept, and -P+, of Eq. 6: [S] float64 each. None as ``expected_negative``.

    0 and -1 for an empty set.
    """
    for lambda_ in (lambda_pos, lambda_neg):
        require_positive("lambda", lambda_, or_inf=True)
    require_positive("hard negative ratio", ratio)
    if not _has_kernels(batch) or min(lambda_pos, lambda_neg) < SMALLEST_LAMBDA:
        return None
    plan = _plan(batch, "ranking", ratio, inverse_neg=1.0 / lambda_neg, inverse_pos=1.0 / lambda_pos)
    p_neg, minus_p_pos = _BothValues.apply(plan, *batch.levels)
    return p_neg, minus_p_pos


def cross_entropy_sum(batch: Batch, ratio: float) -> Tensor | None:
    """-log p_t of each image's positives and of the negatives that are kept, summed, [N] float64. None as above."""
    require_positive("hard negative ratio", ratio)
    if not _has_kernels(batch):
        return None
    total: Tensor = _CrossEntropySum.apply(_plan(batch, "cross_entropy", ratio), *batch.levels)
    return total


def extremes(batch: Batch) -> tuple[Tensor, Tensor] | None:
    """p of each set's hardest negative and -p of its hardest positive, [S] float64 each. None as above.

    0 and -1 for an empty set. Entries of equal logits share the gradient evenly.
    """
    if not _has_kernels(batch):
        return None
    hardest_neg, hardest_pos = _BothValues.apply(_plan(batch, "extremes", 0.0), *batch.levels)
    return hardest_neg, hardest_pos


@dataclass(frozen=True)
class _Plan:
    """What the launches of one call have in common."""

    kind: Kind
    labels: Tensor  # [N, R]
    images_per_set: int
    ratio: float  # 0: one negative
    inverse_neg: float  # 1 / lambda of the negatives
    inverse_pos: float

    @property
    def num_sets(self) -> int:
        return -(-len(self.labels) // self.images_per_set)


@dataclass(frozen=True)
class _Chosen:
    """What the gradient needs to know of the chosen negatives; see ``kernels.gpu_chosen``."""

    largest: Tensor
    thresholds: Tensor
    marks: Tensor
    results: Tensor
    of_positives: Tensor


def _has_kernels(batch: Batch) -> bool:
    return batch.labels.device.type == "cuda" and backend_for(batch.levels) is not None


def _plan(batch: Batch, kind: Kind, ratio: float, *, inverse_neg: float = 0.0, inverse_pos: float = 0.0) -> _Plan:
    return _Plan(kind, batch.labels.contiguous(), batch.images_per_set, ratio, inverse_neg, inverse_pos)


def _choose(plan: _Plan, levels: Sequence[Tensor]) -> _Chosen:
    """The forward pass: one read of the logits, then what is left of them."""
    from drloss.kernels import gpu_chosen, gpu_largest
    from drloss.kernels.gpu_tiles import next_power_of_2, tiles_of

    levels, sizes, num_tiles, layout = tiles_of(levels)
    num_images, num_sets, num_digits = len(plan.labels), plan.num_sets, _DIGITS[levels[0].dtype]
    tile = {"D": num_digits, "GROUPS": min(_GROUPS, layout["ROWS"])}
    sets: dict[str, int] = {"images_per_set": plan.images_per_set, "num_tiles": num_tiles}
    new = plan.labels.new_empty
    largest = new((num_images, num_tiles, tile["GROUPS"]), dtype=torch.int32)
    # Tensors of their own, not parts of one: Triton compiles anew for another alignment.
    num_pos, listed, num_equal = (new(num_images * num_tiles, dtype=torch.int32) for _ in range(3))
    of_positives = _of_positives(plan, num_tiles)
    bounds, num_listed, thresholds = (new(num_sets, dtype=torch.int32) for _ in range(3))
    keep, num_of_equal = new(num_sets), new(num_sets)
    counts, remaining = new((num_sets, num_digits, 256)).zero_(), new((num_sets, num_digits))
    prefixes, marks = new((num_sets, num_digits), dtype=torch.int32), new((num_sets, 2), dtype=torch.int32)
    partials = new((3, num_images * num_tiles), dtype=torch.float32)
    results = new((4, num_sets), dtype=torch.float64)

    grid = max(1, min(plan.images_per_set * num_tiles, _PROGRAMS // num_sets)), num_sets
    source = levels, sizes, plan.labels
    with torch.cuda.device(plan.labels.get_device()):
        gpu_largest.summarize[num_tiles, num_images](
            *source, largest, num_pos, of_positives, plan.inverse_pos, KIND=plan.kind, **tile, **layout, **_OPTIONS
        )
        gpu_largest.list_tiles[num_sets,](
            *(largest, num_pos, bounds, keep, listed, num_listed, plan.ratio),
            **(sets | tile | _ALONE),
            num_images=num_images,
            BLOCK=_AT_ONCE,
        )
        state = counts, prefixes, remaining
        for digit in range(0 if plan.kind == "extremes" else num_digits):
            gpu_largest.count_digits[grid](
                *(*source, largest, bounds, keep, listed, num_listed, *state),
                **(sets | tile | layout | _OPTIONS),
                digit=digit,
            )
        inverses = plan.inverse_neg, plan.inverse_pos
        chosen = thresholds, num_of_equal, partials, num_equal
        gpu_chosen.sum_chosen[grid](
            *(*source, largest, bounds, listed, num_listed, *state, *chosen, plan.inverse_neg),
            **(sets | tile | layout | _OPTIONS),
            num_images=num_images,
            KIND=plan.kind,
        )
        gpu_chosen.combine_chosen[1, num_sets](
            *(*source, listed, num_listed, *chosen, of_positives, results, marks, *inverses),
            **(sets | layout | _ALONE),
            num_images=num_images,
            KIND=plan.kind,
            D=num_digits,
            COLUMNS=next_power_of_2(layout["K"]),
            BLOCK=_AT_ONCE,
        )
    return _Chosen(largest, thresholds, marks, results, of_positives)


def _of_positives(plan: _Plan, num_tiles: int) -> Tensor:
    """What ``gpu_largest.summarize`` writes of the positives."""
    num_images = len(plan.labels)
    if plan.kind == "scores":
        return plan.labels.new_empty(plan.labels.shape, dtype=torch.float32)
    if plan.kind == "cross_entropy":
        return plan.labels.new_empty((num_images, num_tiles), dtype=torch.float32)
    if plan.kind == "ranking":
        return plan.labels.new_empty((3, num_images, num_tiles), dtype=torch.float32)
    return plan.labels.new_empty((2, num_images, num_tiles), dtype=torch.int32)


def _gradients(
    plan: _Plan, levels: Sequence[Tensor], chosen: Sequence[Tensor], slopes: Tensor, grad_pos: Tensor
) -> list[Tensor]:
    """One gradient of each level's shape and dtype. chosen: the first four of ``_Chosen``."""
    from drloss.kernels import gpu_chosen
    from drloss.kernels.gpu_tiles import tiles_of

    levels, sizes, num_tiles, layout = tiles_of(levels)
    gradients = tuple(torch.empty_like(level) for level in levels)
    with torch.cuda.device(plan.labels.get_device()):
        gpu_chosen.write_chosen_gradient[num_tiles, len(plan.labels)](
            *(levels, gradients, sizes, plan.labels, *chosen, slopes.contiguous(), grad_pos.contiguous()),
            *(plan.inverse_neg, plan.inverse_pos),
            images_per_set=plan.images_per_set,
            num_sets=plan.num_sets,
            KIND=plan.kind,
            D=_DIGITS[levels[0].dtype],
            GROUPS=min(_GROUPS, layout["ROWS"]),
            **layout,
            **_OPTIONS,
        )
    return list(gradients)


def _saved(ctx: Any, plan: _Plan, levels: Sequence[Tensor]) -> _Chosen:
    """The forward pass; ``ctx`` keeps what the backward pass needs."""
    chosen = _choose(plan, levels)
    ctx.plan = plan
    ctx.save_for_backward(chosen.largest, chosen.thresholds, chosen.marks, chosen.results, *levels)
    return chosen


class _ExpectedNegative(torch.autograd.Function):
    """P- [S] float64, and the logit of the own class of each anchor, [N, R] float32."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, *levels: Tensor) -> tuple[Tensor, Tensor]:
        chosen = _saved(ctx, plan, levels)
        return chosen.results[0].clone(), chosen.of_positives

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_neg: Tensor, grad_pos: Tensor) -> tuple[Tensor | None, ...]:
        chosen, levels = ctx.saved_tensors[:4], ctx.saved_tensors[4:]
        return None, *_gradients(ctx.plan, levels, chosen, grad_neg, grad_pos)


class _CrossEntropySum(torch.autograd.Function):
    """The sum of each set, [S] float64."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, *levels: Tensor) -> Tensor:
        return _saved(ctx, plan, levels).results[0].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        chosen, levels = ctx.saved_tensors[:4], ctx.saved_tensors[4:]
        return None, *_gradients(ctx.plan, levels, chosen, grad, grad)


class _BothValues(torch.autograd.Function):
    """What stands for the negatives of each set, and what for its positives, as -p: [S] float64 each."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, *levels: Tensor) -> tuple[Tensor, Tensor]:
        results = _saved(ctx, plan, levels).results
        # Copies, because the results are needed again: a caller may change what it was given.
        return results[0].clone(), results[1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_neg: Tensor, grad_pos: Tensor) -> tuple[Tensor | None, ...]:
        chosen, levels = ctx.saved_tensors[:4], ctx.saved_tensors[4:]
        slopes = torch.stack([grad_neg, grad_pos])
        return None, *_gradients(ctx.plan, levels, chosen, slopes, slopes)
