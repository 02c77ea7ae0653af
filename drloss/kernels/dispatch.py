"""Which backend computes the losses: ``kernels.cpu``, with numba, two passes over the logits and torch between them;
``kernels.gpu``, with Triton, whole losses, because there each small step of torch would be a launch of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Literal, Protocol, TypeAlias, cast

import torch
from torch import Tensor

from drloss.inputs import is_transformed

Pointwise: TypeAlias = Literal["focal", "cross_entropy"]
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Ranking:
    """A ranking loss as numbers. The mean is taken over groups of ``sets_per_group`` sets of ``images_per_set`` images.

    inverse_neg, inverse_pos: 1 / lambda, 0 for the plain mean. each_positive: NegOnly, whose inverse_pos is 0.
    surrogate, parameter: see ``surrogates.Form``.
    """

    inverse_neg: float
    inverse_pos: float
    margin: float
    surrogate: str
    parameter: float
    each_positive: bool
    images_per_set: int
    sets_per_group: int


@dataclass(frozen=True)
class PointwiseLoss:
    """Focal loss or cross entropy. count_images: a group's sum is divided by its positives + images, else by
    max(1, positives)."""

    kind: Pointwise
    alpha: float
    gamma: float
    count_images: bool
    images_per_group: int


class Backend(Protocol):
    """Levels are contiguous [N, R_l, K], labels [N, R] int64; both kinds of sums are taken by set of images.

    inverse_lambda: 1 / lambda, 0 for the plain mean. See ``kernels.cpu`` for what each function returns.
    """

    def reduce_negatives(
        self, levels: Sequence[Tensor], labels: Tensor, set_of_image: Sequence[int], inverse_lambda: float
    ) -> tuple[Tensor, Tensor, Tensor]: ...

    def negatives_gradient(
        self,
        levels: Sequence[Tensor],
        labels: Tensor,
        set_of_image: Sequence[int],
        inverse_lambda: float,
        expected_neg: Tensor,
        log_normalizer: Tensor,
        grad_neg: Tensor,
        grad_pos: Tensor,
    ) -> list[Tensor]: ...

    def pointwise_sum(
        self,
        levels: Sequence[Tensor],
        labels: Tensor,
        group_of_image: Sequence[int],
        kind: Pointwise,
        alpha: float,
        gamma: float,
    ) -> Tensor: ...

    def pointwise_gradient(
        self,
        levels: Sequence[Tensor],
        labels: Tensor,
        group_of_image: Sequence[int],
        kind: Pointwise,
        alpha: float,
        gamma: float,
        scale: Tensor,
    ) -> list[Tensor]: ...


class Losses(Protocol):
    """Whole losses and their gradients: see ``kernels.gpu``."""

    def ranking_loss(self, levels: Sequence[Tensor], labels: Tensor, ranking: Ranking) -> tuple[Tensor, Tensor]: ...

    def ranking_gradient(
        self, levels: Sequence[Tensor], labels: Tensor, ranking: Ranking, work: Tensor, grad_loss: Tensor
    ) -> list[Tensor]: ...

    def scores(
        self, levels: Sequence[Tensor], labels: Tensor, ranking: Ranking, *, pos_logits: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]: ...

    def scores_gradient(
        self,
        levels: Sequence[Tensor],
        labels: Tensor,
        ranking: Ranking,
        work: Tensor,
        *,
        grad_neg: Tensor,
        grad_pos: Tensor,
    ) -> list[Tensor]: ...

    def pointwise_loss(
        self, levels: Sequence[Tensor], labels: Tensor, pointwise: PointwiseLoss
    ) -> tuple[Tensor, Tensor]: ...

    def pointwise_gradient(
        self, levels: Sequence[Tensor], labels: Tensor, pointwise: PointwiseLoss, work: Tensor, grad_loss: Tensor
    ) -> list[Tensor]: ...


def losses_for(levels: Sequence[Tensor]) -> Losses | None:
    """The backend of whole losses for these logits, on a GPU; None where ``backend_for`` finds none, or on a CPU."""
    return None if levels[0].device.type == "cpu" else cast(Losses | None, backend_for(levels))


def backend_for(levels: Sequence[Tensor]) -> Backend | None:
    """The backend for these logits; None where only plain torch will do.

    That is: without numba or Triton, in float64, on another device, for levels of several dtypes on a GPU, and in code
    that torch transforms (``torch.compile``, ``torch.func``).
    """
    if any(level.dtype not in _DTYPES or level.device != levels[0].device for level in levels):
        return None
    if levels[0].device.type != "cpu" and any(level.dtype != levels[0].dtype for level in levels):
        return None
    return None if is_transformed() else _backend(levels[0].device.type)


@cache
def _backend(device: str) -> Backend | None:
    """Imported when first needed: the kernels' compilers take a third of a second to load."""
    compiler, module = {"cpu": ("numba", "cpu"), "cuda": ("triton", "gpu")}.get(device, ("", ""))
    if not module or find_spec(compiler) is None or find_spec(f"drloss.kernels.{module}") is None:
        return None
    return cast(Backend, import_module(f"drloss.kernels.{module}"))
