"""The losses with their gradients in closed form: two passes over the logits, and nothing of their size in between.

On a CPU; ``on_gpu`` has the same for whole losses.

Legend: N images, R anchors of all levels together, K classes, S sets of consecutive images that are ranked together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from drloss.checks import require_positive
from drloss.inputs import Batch, positives
from drloss.kernels.dispatch import Backend, Pointwise, backend_for

# p / lambda is computed in float32. Below this, its rounding would be too large an error of the exponent.
SMALLEST_LAMBDA = 1e-6


def expected_negative(batch: Batch, lambda_neg: float) -> tuple[Tensor, Tensor, Tensor] | None:
    """P- of Eq. 6 [S] float64, and the positives' logits [S, P] with their mask. None where there is no backend.

    lambda_neg: > 0, inf for the plain mean. None is returned below ``SMALLEST_LAMBDA`` too; plain torch does those.
    """
    require_positive("lambda", lambda_neg, or_inf=True)
    backend = _backend(batch)
    if backend is None or lambda_neg < SMALLEST_LAMBDA:
        return None
    levels = [level.contiguous() for level in batch.levels]
    # Few anchors match, so that the rest of the loss costs next to nothing.
    anchors = torch.unique(positives(batch.labels)[1])
    matched = anchors if len(anchors) else anchors.new_zeros(1)
    labels = batch.labels.index_select(1, matched)
    inputs = backend, batch.labels, batch.set_of_image, 1.0 / lambda_neg, matched
    expected, pos_logits = _ExpectedNegative.apply(*inputs, *levels)
    return expected, batch.by_set(pos_logits.double(), 0.0), batch.by_set(labels >= 0, False)


def pointwise_sum(batch: Batch, kind: Pointwise, *, alpha: float = 0.0, gamma: float = 0.0) -> Tensor | None:
    """Focal loss or cross entropy of the entries of each image, summed, [N] float64. None without a backend."""
    backend = _backend(batch)
    if backend is None:
        return None
    levels = [level.contiguous() for level in batch.levels]
    images = range(len(batch.labels))
    total: Tensor = _PointwiseSum.apply(backend, batch.labels, images, kind, alpha, gamma, *levels)
    return total


def _backend(batch: Batch) -> Backend | None:
    return backend_for(batch.levels) if batch.labels.device.type == "cpu" else None


class _ExpectedNegative(torch.autograd.Function):
    """P- of Eq. 6 [S] float64, and the logit of the own class of each of the ``matched`` anchors, [N, P] float32.

    The gradient by a negative's logit, with q_j = exp(p_j / lambda) / sum_i exp(p_i / lambda):
    q_j (1 + (p_j - P-) / lambda) p_j (1 - p_j). p and q are computed in both passes and never stored.
    """

    @staticmethod
    def forward(
        ctx: Any,
        backend: Backend,
        labels: Tensor,
        sets: Sequence[int],
        inverse_lambda: float,
        matched: Tensor,
        *levels: Tensor,
    ) -> tuple[Tensor, Tensor]:
        expected, log_normalizer, pos_logits = backend.reduce_negatives(levels, labels, sets, inverse_lambda)
        ctx.save_for_backward(labels, expected, log_normalizer, *levels)
        ctx.constants = backend, sets, inverse_lambda, matched
        return expected, pos_logits.index_select(1, matched)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_neg: Tensor, grad_pos: Tensor) -> tuple[Tensor | None, ...]:
        labels, expected, log_normalizer, *levels = ctx.saved_tensors
        backend, sets, inverse_lambda, matched = ctx.constants
        grad_of_all = torch.from_numpy(np.zeros(labels.shape, np.float32)).index_copy_(1, matched, grad_pos)
        grads = backend.negatives_gradient(
            levels, labels, sets, inverse_lambda, expected, log_normalizer, grad_neg, grad_of_all
        )
        return None, None, None, None, None, *grads


class _PointwiseSum(torch.autograd.Function):
    """Sum of the losses of all entries that are not ignored, [S] float64."""

    @staticmethod
    def forward(
        ctx: Any,
        backend: Backend,
        labels: Tensor,
        sets: Sequence[int],
        kind: Pointwise,
        alpha: float,
        gamma: float,
        *levels: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(labels, *levels)
        ctx.constants = backend, sets, kind, alpha, gamma
        return backend.pointwise_sum(levels, labels, sets, kind, alpha, gamma)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        labels, *levels = ctx.saved_tensors
        backend, sets, kind, alpha, gamma = ctx.constants
        grads = backend.pointwise_gradient(levels, labels, sets, kind, alpha, gamma, scale)
        return None, None, None, None, None, None, *grads
