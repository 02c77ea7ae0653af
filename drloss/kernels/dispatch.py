"""Which backend computes the two passes over the logits: ``kernels.cpu`` with numba, ``kernels.gpu`` with Triton."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Literal, Protocol, TypeAlias, cast

import torch
from torch import Tensor

from drloss.inputs import is_transformed

Pointwise: TypeAlias = Literal["focal", "cross_entropy"]
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


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
