"""Losses that judge each entry alone: focal loss and sigmoid cross entropy, the paper's baselines.

Both are summed over the entries of all anchors that are not ignored and divided once a call: by (positive anchors +
images), as the paper's base codebase does, or by max(1, positive anchors), as the focal loss's authors and torchvision.
Legend: N images, R anchors, K classes.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from drloss import IGNORED
from drloss.checks import require_between, require_choice
from drloss.entries import Logits, mined_negatives, prepared

Normalizer: TypeAlias = Literal["positives_and_images", "positives"]


def focal_loss(
    logits: Logits,
    labels: Tensor,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    normalizer: Normalizer = "positives_and_images",
) -> Tensor:
    """Focal loss (Lin et al., 2017, Eq. 5): -alpha_t (1 - p_t)^gamma log(p_t), summed and normalised. Scalar.

    p_t = p and alpha_t = alpha for a positive entry, 1 - p and 1 - alpha for a negative one; alpha in [0, 1],
    gamma >= 0. logits and labels: any form of ``entries.prepared``. Raises ValueError for values out of range.
    """
    require_choice("normalizer", normalizer, ("positives_and_images", "positives"))
    require_between("alpha", alpha, 0.0, 1.0)
    require_between("gamma", gamma, 0.0)
    with prepared(logits, labels) as (logits, labels):
        is_pos = _is_positive(logits, labels)
        wrong = _wrong_way(logits, is_pos, (labels != IGNORED).unsqueeze(2))
        # (1 - p_t)^gamma through its logarithm: pow has an infinite slope at 0 for gamma < 1.
        losses = torch.exp(gamma * F.logsigmoid(wrong)) * F.softplus(wrong, threshold=40.0)
        return _normalized(losses * torch.where(is_pos, alpha, 1.0 - alpha), labels, normalizer)


def cross_entropy_loss(logits: Logits, labels: Tensor, *, hard_negative_ratio: float | None = None) -> Tensor:
    """Sigmoid cross entropy -log(p_t), summed and normalised. Scalar. Arguments and errors as ``focal_loss``.

    hard_negative_ratio: None sums all entries. Else, as in SSD (Liu et al., 2016, section 2.2), each image keeps its
    positives and the ``ratio`` * positives negatives of highest loss: see ``entries.mined_negatives`` (a negative's
    loss rises with its logit, so that the order is the same).
    """
    with prepared(logits, labels) as (logits, labels):
        is_pos = _is_positive(logits, labels)
        counted = (labels != IGNORED).unsqueeze(2)
        if hard_negative_ratio is not None:
            is_neg = (counted & ~is_pos).flatten(1)
            kept = mined_negatives(logits.flatten(1), is_neg, (labels >= 0).sum(dim=1), hard_negative_ratio)
            counted = is_pos | kept.view_as(is_pos)
        losses = F.softplus(_wrong_way(logits, is_pos, counted), threshold=40.0)
        return _normalized(losses, labels, "positives_and_images")


def _is_positive(logits: Tensor, labels: Tensor) -> Tensor:
    """Mask of the entries (j, k) with labels[j] == k: [N, R, K] bool."""
    return torch.arange(logits.shape[2], device=labels.device) == labels.unsqueeze(2)


def _wrong_way(logits: Tensor, is_pos: Tensor, counted: Tensor) -> Tensor:
    """The logit of 1 - p_t: -logit of a positive, logit of a negative, -inf (loss 0, gradient 0) if not counted."""
    return torch.where(is_pos, -logits, logits).masked_fill(~counted, -torch.inf)


def _normalized(losses: Tensor, labels: Tensor, normalizer: Normalizer) -> Tensor:
    """Sum of [N, R, K], accumulated in float64, over the normaliser, in the losses' dtype."""
    num_positives = (labels >= 0).sum()
    divisor = num_positives.clamp(min=1) if normalizer == "positives" else num_positives + labels.shape[0]
    return (losses.sum(dtype=torch.float64) / divisor).to(losses.dtype)
