"""All pairs straight from the logits on CUDA: two passes over them in a few launches, none of which is waited for.

Besides the gradient, there are a few numbers per anchor. Legend: N images, R anchors of all levels, S sets of
consecutive images that are ranked together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import floor
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from drloss.kernels.dispatch import backend_for
from drloss.pairs.grid import CELLS_PER_SCALE, NUM_MOMENTS
from drloss.surrogates import Surrogate, form_of

_AT_ONCE = 1024
_BLOCK = 32  # cells by positives
_COPIES = 16
# Fused multiply-add is named, because triton warns of a default that is going to change.
_OPTIONS: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": True}
_ALONE: dict[str, Any] = {"num_warps": 8, "enable_fp_fusion": True}
_Source: TypeAlias = tuple[tuple[Tensor, ...], tuple[int, ...], Tensor]
_Out: TypeAlias = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class _Plan:
    """What the launches of one call have in common."""

    labels: Tensor  # [N, R]
    images_per_set: int
    margin: float
    power: int  # 1 hinge, 2 quadratic, 0 logistic
    parameter: float  # rho or L

    @property
    def num_sets(self) -> int:
        return -(-len(self.labels) // self.images_per_set)

    @property
    def size(self) -> int:
        """Anchors per set."""
        return self.images_per_set * self.labels.shape[1]

    @property
    def num_cells(self) -> int:
        return floor(CELLS_PER_SCALE * self.parameter) + 1


def pair_means(
    levels: Sequence[Tensor], labels: Tensor, *, margin: float, surrogate: Surrogate, images_per_set: int = 1
) -> Tensor | None:
    """As ``from_logits.pair_means``. None where this is no help: not on CUDA, float64, another surrogate, or an L so
    large that the cells would have as many nodes as there are entries.
    """
    if not _has_kernels(levels):
        return None
    plan = _plan(labels, margin, surrogate, images_per_set)
    if plan is None or (plan.power == 0 and NUM_MOMENTS * plan.num_cells >= plan.size * levels[0].shape[2]):
        return None
    means: Tensor = _PairMeans.apply(plan, *levels)
    return means


def _has_kernels(levels: Sequence[Tensor]) -> bool:
    return levels[0].device.type == "cuda" and backend_for(levels) is not None


def _plan(labels: Tensor, margin: float, surrogate: Surrogate, images_per_set: int) -> _Plan | None:
    """None for a surrogate that is not ours."""
    form = form_of(surrogate)
    if form is None:
        return None
    power = {"hinge": 1, "quadratic": 2, "logistic": 0}[form.name]
    return _Plan(labels.contiguous(), images_per_set, margin, power, form.parameter)


@dataclass(frozen=True)
class _Sums:
    """What the second pass needs, see the kernels."""

    knots: Tensor
    sums: Tensor
    numbers: Tensor
    grad_pos: Tensor


def _split(number: float) -> tuple[float, float]:
    """A number as the sum of two that travel with a launch, which takes float32 only."""
    high = float(np.float32(number))
    return high, number - high


def _first_pass(plan: _Plan, levels: Sequence[Tensor]) -> tuple[Tensor, _Sums]:
    """The means, [S] float64."""
    from drloss.kernels.gpu_tiles import tiles_of
    from drloss.pairs import gpu_passes

    levels, sizes, num_tiles, layout = tiles_of(levels)
    labels, num_sets, size = plan.labels, plan.num_sets, plan.size
    new = partial(labels.new_empty, dtype=torch.float64)
    source = levels, sizes, labels
    counts = labels.new_empty((2, len(labels), num_tiles), dtype=torch.int32)
    # A last set of fewer images has no positives in the rest.
    scores = labels.new_full((num_sets, size), torch.inf, dtype=torch.float64)
    with torch.cuda.device(labels.get_device()):
        gpu_passes.scores_of_positives[num_tiles, len(labels)](*source, scores, counts, **layout, **_OPTIONS)
        scores, order = scores.sort(dim=1)
        knots = scores.sub_(plan.margin)
        sums, numbers = (
            new((max(1, plan.power), num_sets, size + 1)),
            labels.new_empty((num_sets, 4), dtype=torch.int32),
        )
        grid = {"images_per_set": plan.images_per_set, "num_images": len(labels), "num_tiles": num_tiles, "size": size}
        gpu_passes.prepare[num_sets,](
            *(knots, counts, sums, numbers, *_split(plan.margin)), **grid, BLOCK=_AT_ONCE, SQUARES=plan.power, **_ALONE
        )
        found = _Sums(knots, sums, numbers, new((num_sets, size)))
        means, partials = new(num_sets), new((len(labels), num_tiles))
        run = _logistic_sums if plan.power == 0 else _knot_sums
        return means, run(plan, source, found, (order, partials, means), grid, layout)


def _knot_sums(
    plan: _Plan, source: _Source, found: _Sums, out: _Out, grid: dict[str, int], layout: dict[str, int]
) -> _Sums:
    """Hinge and quadratic; writes ``out``: order of the knots (read only), partial sums, means."""
    from drloss.pairs import gpu_passes

    order, partials, means = out
    knots, rho = found.knots, _split(plan.parameter)
    table = plan.labels.new_zeros((plan.power, plan.num_sets, plan.size + 1, plan.power))
    gpu_passes.sum_pairs[grid["num_tiles"], grid["num_images"]](
        *(*source, knots, found.sums, found.numbers, table, partials, *rho),
        images_per_set=plan.images_per_set,
        num_sets=plan.num_sets,
        size=plan.size,
        POWER=plan.power,
        **layout,
        **_OPTIONS,
    )
    gpu_passes.combine_pairs[plan.num_sets,](
        *(knots, order, found.numbers, table, partials, means, found.grad_pos, *_split(plan.margin), *rho),
        **grid,
        POWER=plan.power,
        BLOCK=_AT_ONCE,
        **_ALONE,
    )
    return found


def _logistic_sums(
    plan: _Plan, source: _Source, found: _Sums, out: _Out, grid: dict[str, int], layout: dict[str, int]
) -> _Sums:
    """As ``_knot_sums``. The sums become the cubics of the cells, [2, S, C, 4]."""
    from drloss.pairs import gpu_logistic

    order, partials, means = out
    num_cells, scale = plan.num_cells, (*_split(plan.parameter), CELLS_PER_SCALE)
    cubics = partials.new_empty((2, plan.num_sets, num_cells, NUM_MOMENTS))
    moments = plan.labels.new_zeros((_COPIES, plan.num_sets, num_cells, NUM_MOMENTS))
    gpu_logistic.tabulate[-(-num_cells // _BLOCK), plan.num_sets](
        *(found.knots, found.numbers, cubics, *scale, num_cells, plan.size), BLOCK=_BLOCK, **_OPTIONS
    )
    gpu_logistic.sum_moments[grid["num_tiles"], grid["num_images"]](
        *(*source, moments, partials, *scale, plan.images_per_set, plan.num_sets, num_cells),
        COPIES=_COPIES,
        **layout,
        **_OPTIONS,
    )
    gpu_logistic.combine_logistic[-(-plan.size // _BLOCK), plan.num_sets](
        *(found.knots, order, found.numbers, cubics, moments, partials, means, found.grad_pos),
        *(*_split(plan.margin), *scale),
        **grid,
        num_cells=num_cells,
        COPIES=_COPIES,
        BLOCK=_BLOCK,
        **_OPTIONS,
    )
    return _Sums(found.knots, cubics, found.numbers, found.grad_pos)


def _second_pass(plan: _Plan, levels: Sequence[Tensor], found: _Sums, slopes: Tensor) -> list[Tensor]:
    """One gradient of each level's shape and dtype. slopes: [S] float64."""
    from drloss.kernels.gpu_tiles import tiles_of
    from drloss.pairs import gpu_logistic, gpu_passes

    levels, sizes, num_tiles, layout = tiles_of(levels)
    gradients = tuple(torch.empty_like(level) for level in levels)
    source = levels, gradients, sizes, plan.labels
    with torch.cuda.device(plan.labels.get_device()):
        if plan.power == 0:
            gpu_logistic.write_logistic_gradient[num_tiles, len(plan.labels)](
                *(*source, found.numbers, found.sums[1], found.grad_pos, slopes.contiguous()),
                *(*_split(plan.parameter), CELLS_PER_SCALE, plan.images_per_set, plan.num_cells),
                **layout,
                **_OPTIONS,
            )
        else:
            gpu_passes.write_pairs_gradient[num_tiles, len(plan.labels)](
                *(*source, found.knots, found.sums, found.numbers, found.grad_pos, slopes.contiguous()),
                *(*_split(plan.parameter), plan.images_per_set, plan.num_sets, plan.size),
                POWER=plan.power,
                **layout,
                **_OPTIONS,
            )
    return list(gradients)


class _PairMeans(torch.autograd.Function):
    """The mean over all pairs of each set, [S] float64; the backward pass computes the scores once more."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, *levels: Tensor) -> Tensor:
        means, found = _first_pass(plan, levels)
        ctx.plan = plan
        ctx.save_for_backward(found.knots, found.sums, found.numbers, found.grad_pos, *levels)
        return means

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        found, levels = _Sums(*ctx.saved_tensors[:4]), ctx.saved_tensors[4:]
        return None, *_second_pass(ctx.plan, levels, found, grad)
