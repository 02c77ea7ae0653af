"""Losses that judge each entry alone: focal loss and sigmoid cross entropy, the paper's baselines.

Both are summed over the entries of all anchors that are not ignored. The sum of a group of images is divided by
(positive anchors + images), as in the paper's base codebase, or by max(1, positive anchors), as by the focal loss's
authors and torchvision. All images of a call are one group; ``images_per_group`` makes several, and the loss is their
mean.
Legend: N images, R anchors, K classes.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from drloss.checks import require_between, require_choice, require_flag, require_positive
from drloss.fused import on_gpu
from drloss.fused.hardest_entries import hardest_entries
from drloss.fused.hardest_on_gpu import cross_entropy_sum
from drloss.fused.two_passes import pointwise_sum
from drloss.inputs import Batch, Logits, joined, prepared, split_entries
from drloss.labels import IGNORED

Normalizer: TypeAlias = Literal["positives_and_images", "positives"]


def focal_loss(
    logits: Logits,
    labels: Tensor,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    normalizer: Normalizer = "positives_and_images",
    images_per_group: int | None = None,
    fused: bool = True,
) -> Tensor:
    """Focal loss (Lin et al., 2017, Eq. 5): -alpha_t (1 - p_t)^gamma log(p_t), summed and normalised. Scalar.

    p_t = p and alpha_t = alpha for a positive entry, 1 - p and 1 - alpha for a negative one; alpha in [0, 1],
    gamma >= 0. logits and labels: any form of ``inputs.prepared``. Raises ValueError for values out of range.
    images_per_group: None makes one group. fused: see ``functional.distributional``.
    """
    require_flag("fused", fused)
    require_choice("normalizer", normalizer, ("positives_and_images", "positives"))
    require_between("alpha", alpha, 0.0, 1.0)
    require_between("gamma", gamma, 0.0)
    fused = fused and not isinstance(alpha, Tensor) and not isinstance(gamma, Tensor)  # compiled loops take numbers
    with prepared(logits, labels, images_per_group=images_per_group) as batch:
        if fused:
            count_images = normalizer == "positives_and_images"
            loss = on_gpu.pointwise(batch, "focal", alpha=alpha, gamma=gamma, count_images=count_images)
            if loss is not None:
                return loss
        total = pointwise_sum(batch, "focal", alpha=alpha, gamma=gamma) if fused else None
        if total is None:
            is_pos, wrong = _wrong_way(batch)
            # (1 - p_t)^gamma by its logarithm, because pow has an infinite slope at 0 for gamma < 1. Left out where
            # gamma is 0: 0 times the -inf of an ignored entry is NaN.
            factor = torch.exp(gamma * F.logsigmoid(wrong)) if gamma else 1.0
            losses = factor * F.softplus(wrong, threshold=40.0)
            total = _image_sums(losses * torch.where(is_pos, alpha, 1.0 - alpha))
        return _normalized(total, batch, normalizer)


def cross_entropy_loss(
    logits: Logits,
    labels: Tensor,
    *,
    hard_negative_ratio: float | None = None,
    images_per_group: int | None = None,
    fused: bool = True,
) -> Tensor:
    """Sigmoid cross entropy -log(p_t), summed and normalised. Scalar. Arguments and errors as ``focal_loss``.

    hard_negative_ratio: None sums all entries. Else, as in SSD (Liu et al., 2016, section 2.2), each image keeps its
    positives and the ``ratio`` * positives negatives of highest loss: see ``inputs.mined_negatives`` (a negative's
    loss rises with its logit, so the order is the same).
    """
    require_flag("fused", fused)
    if hard_negative_ratio is not None:
        require_positive("hard negative ratio", hard_negative_ratio)
    with prepared(logits, labels, images_per_group=images_per_group) as batch:
        if fused and hard_negative_ratio is None:
            loss = on_gpu.pointwise(batch, "cross_entropy", alpha=0.0, gamma=0.0, count_images=True)
            if loss is not None:
                return loss
        if hard_negative_ratio is not None:
            total = _mined_cross_entropy(batch, hard_negative_ratio, fused)
        else:
            fast = pointwise_sum(batch, "cross_entropy") if fused else None
            total = _image_sums(F.softplus(_wrong_way(batch)[1], threshold=40.0)) if fast is None else fast
        return _normalized(total, batch, "positives_and_images")


def _mined_cross_entropy(batch: Batch, ratio: float, fused: bool) -> Tensor:
    """Sum over the kept entries of each image, [N] float64."""
    total = cross_entropy_sum(batch, ratio) if fused else None
    if total is not None:
        return total
    entries = hardest_entries(batch, ratio) if fused else None
    if entries is None:
        entries = split_entries(*joined(batch), hard_negative_ratio=ratio)
    wrong = (entries.neg_logits, entries.is_neg), (-entries.pos_logits, entries.is_pos)
    neg, pos = (_image_sums(F.softplus(x.masked_fill(~kept, -torch.inf), threshold=40.0)) for x, kept in wrong)
    return neg + pos


def _wrong_way(batch: Batch) -> tuple[Tensor, Tensor]:
    """Mask of the positive entries, and the logit of 1 - p_t: both [N, R, K].

    -logit of a positive, logit of a negative, -inf (loss 0, gradient 0) of an ignored entry.
    """
    logits, labels = joined(batch)
    is_pos = torch.arange(logits.shape[2], device=labels.device) == labels.unsqueeze(2)
    return is_pos, torch.where(is_pos, -logits, logits).masked_fill((labels == IGNORED).unsqueeze(2), -torch.inf)


def _image_sums(losses: Tensor) -> Tensor:
    """[N, ...] -> [N], accumulated in float64."""
    return losses.flatten(1).sum(dim=1, dtype=torch.float64)


def _normalized(image_sums: Tensor, batch: Batch, normalizer: Normalizer) -> Tensor:
    """Mean over groups of a group's sum over its normaliser, in the batch's dtype. image_sums: [N] float64."""
    num_positives = batch.num_positives.double()
    of_images = torch.stack([image_sums, num_positives, torch.ones_like(image_sums)])
    groups = [group.sum(dim=1) for group in torch.split(of_images, batch.images_per_group, dim=1)]
    total, num_positives, num_images = torch.stack(groups, dim=1)
    divisor = num_positives.clamp(min=1) if normalizer == "positives" else num_positives + num_images
    mean: Tensor = (total / divisor).mean().to(batch.dtype)
    return mean
