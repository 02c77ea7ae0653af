"""Whole losses on a GPU, from the logits to a scalar and back, in a handful of launches; once differentiable.

The positives are some hundred among R anchors, and the host cannot know where without waiting. So nothing is done in
torch that would visit all anchors again: the kernels that read the logits also add up the positives.
Legend: N images, R anchors of all levels together, S sets of consecutive images that are ranked together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from drloss.checks import require_positive
from drloss.fused.two_passes import SMALLEST_LAMBDA
from drloss.inputs import Batch
from drloss.kernels.dispatch import Losses, Pointwise, PointwiseLoss, Ranking, losses_for
from drloss.surrogates import Form, Surrogate, form_of


def dr(batch: Batch, *, lambda_pos: float, lambda_neg: float, margin: float, surrogate: Surrogate) -> Tensor | None:
    """Eq. 9, the mean over groups: a scalar. None off the GPU, and where only plain torch will do (small lambdas).

    Any surrogate: one that the kernels do not know is applied in torch, to S numbers.
    """
    form = form_of(surrogate)
    ranking = _ranking(batch, (lambda_neg, lambda_pos), margin, form)
    backend = None if ranking is None else losses_for(batch.levels)
    if ranking is None or backend is None:
        return None
    if form is None:
        p_neg, p_pos = _Scores.apply(backend, batch.labels, ranking, False, *_contiguous(batch))
        return batch.mean(surrogate(p_neg - p_pos + margin))
    loss: Tensor = _RankingLoss.apply(backend, batch.labels, ranking, *_contiguous(batch))
    return loss


def neg_only(batch: Batch, *, lambda_neg: float, margin: float, surrogate: Surrogate) -> Tensor | None:
    """NegOnly, the mean over groups: a scalar. None as ``dr``, and for a surrogate that the kernels do not know."""
    form = form_of(surrogate)
    ranking = _ranking(batch, (lambda_neg, torch.inf), margin, form, each_positive=True)
    backend = None if ranking is None or form is None else losses_for(batch.levels)
    if ranking is None or backend is None:
        return None
    loss: Tensor = _RankingLoss.apply(backend, batch.labels, ranking, *_contiguous(batch))
    return loss


def expected_scores(batch: Batch, *, lambda_pos: float, lambda_neg: float) -> tuple[Tensor, Tensor] | None:
    """P- and P+ of Eq. 6, [S] float64 each. None as ``dr``."""
    ranking = _ranking(batch, (lambda_neg, lambda_pos), 0.0, None)
    backend = None if ranking is None else losses_for(batch.levels)
    if ranking is None or backend is None:
        return None
    p_neg, p_pos = _Scores.apply(backend, batch.labels, ranking, False, *_contiguous(batch))
    return p_neg, p_pos


def expected_negative(batch: Batch, lambda_neg: float) -> tuple[Tensor, Tensor, Tensor] | None:
    """P- [S] float64, and the logits of all anchors' own classes [S, R] with their mask. None as ``dr``.

    For what is done with each positive in torch: NegOnly with a surrogate that the kernels do not know.
    """
    ranking = _ranking(batch, (lambda_neg, torch.inf), 0.0, None)
    backend = None if ranking is None else losses_for(batch.levels)
    if ranking is None or backend is None:
        return None
    p_neg, pos_logits = _Scores.apply(backend, batch.labels, ranking, True, *_contiguous(batch))
    return p_neg, batch.by_set(pos_logits, 0.0), batch.by_set(batch.labels >= 0, False)


def pointwise(batch: Batch, kind: Pointwise, *, alpha: float, gamma: float, count_images: bool) -> Tensor | None:
    """Focal loss or cross entropy, normalised, the mean over groups: a scalar. None off the GPU."""
    backend = losses_for(batch.levels)
    if backend is None:
        return None
    numbers = PointwiseLoss(kind, alpha, gamma, count_images, batch.images_per_group)
    loss: Tensor = _PointwiseLoss.apply(backend, batch.labels, numbers, *_contiguous(batch))
    return loss


def _contiguous(batch: Batch) -> list[Tensor]:
    return [level.contiguous() for level in batch.levels]


def _ranking(
    batch: Batch, lambdas: tuple[float, float], margin: float, form: Form | None, *, each_positive: bool = False
) -> Ranking | None:
    """None for a lambda (negatives', positives') that is too small for float32 exponents."""
    for lambda_ in lambdas:
        require_positive("lambda", lambda_, or_inf=True)
    if min(lambdas) < SMALLEST_LAMBDA:
        return None
    inverse_neg, inverse_pos = (1.0 / lambda_ for lambda_ in lambdas)
    name, parameter = form or Form("hinge", 0.0)
    sets_per_group = batch.images_per_group // batch.images_per_set
    return Ranking(
        inverse_neg, inverse_pos, margin, name, parameter, each_positive, batch.images_per_set, sets_per_group
    )


class _RankingLoss(torch.autograd.Function):
    """DR or NegOnly with a surrogate that the kernels know."""

    @staticmethod
    def forward(ctx: Any, backend: Losses, labels: Tensor, ranking: Ranking, *levels: Tensor) -> Tensor:
        loss, work = backend.ranking_loss(levels, labels, ranking)
        ctx.save_for_backward(labels, work, *levels)
        ctx.constants = backend, ranking
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        return _RankingLoss.gradients(ctx, grad_loss, *ctx.saved_tensors)

    # Apart from ``backward``, so that torch sees the logits among the arguments, and refuses a second derivative.
    @staticmethod
    @once_differentiable
    def gradients(
        ctx: Any, grad_loss: Tensor, labels: Tensor, work: Tensor, *levels: Tensor
    ) -> tuple[Tensor | None, ...]:
        backend, ranking = ctx.constants
        return None, None, None, *backend.ranking_gradient(levels, labels, ranking, work, grad_loss)


class _Scores(torch.autograd.Function):
    """P- with P+, [S] each, or with the positives' logits, [N, R]."""

    @staticmethod
    def forward(
        ctx: Any, backend: Losses, labels: Tensor, ranking: Ranking, with_logits: bool, *levels: Tensor
    ) -> tuple[Tensor, Tensor]:
        p_neg, p_pos, work, pos_logits = backend.scores(levels, labels, ranking, pos_logits=with_logits)
        ctx.save_for_backward(labels, work, *levels)
        ctx.constants = backend, ranking
        # Copies, because the workspace is needed again: a caller may change what it was given.
        return p_neg.clone(), p_pos.clone() if pos_logits is None else pos_logits

    @staticmethod
    def backward(ctx: Any, grad_neg: Tensor, grad_pos: Tensor) -> tuple[Tensor | None, ...]:
        return _Scores.gradients(ctx, grad_neg, grad_pos, *ctx.saved_tensors)

    @staticmethod
    @once_differentiable
    def gradients(
        ctx: Any, grad_neg: Tensor, grad_pos: Tensor, labels: Tensor, work: Tensor, *levels: Tensor
    ) -> tuple[Tensor | None, ...]:
        backend, ranking = ctx.constants
        grads = backend.scores_gradient(levels, labels, ranking, work, grad_neg=grad_neg, grad_pos=grad_pos)
        return None, None, None, None, *grads


class _PointwiseLoss(torch.autograd.Function):
    """Focal loss or cross entropy."""

    @staticmethod
    def forward(ctx: Any, backend: Losses, labels: Tensor, numbers: PointwiseLoss, *levels: Tensor) -> Tensor:
        loss, work = backend.pointwise_loss(levels, labels, numbers)
        ctx.save_for_backward(labels, work, *levels)
        ctx.constants = backend, numbers
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        return _PointwiseLoss.gradients(ctx, grad_loss, *ctx.saved_tensors)

    @staticmethod
    @once_differentiable
    def gradients(
        ctx: Any, grad_loss: Tensor, labels: Tensor, work: Tensor, *levels: Tensor
    ) -> tuple[Tensor | None, ...]:
        backend, numbers = ctx.constants
        return None, None, None, *backend.pointwise_gradient(levels, labels, numbers, work, grad_loss)
