"""The losses as they are usually written: what ours are compared with. Legend: N images, R anchors, K classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from drloss.functional.distributional import LAMBDA_NEG, LAMBDA_POS, MARGIN
from drloss.labels import IGNORED
from drloss.surrogates import Surrogate, logistic

Loss: TypeAlias = Callable[[Sequence[Tensor], Tensor], Tensor]

TAU = 4.0


def usual_dr(
    levels: Sequence[Tensor],
    labels: Tensor,
    *,
    surrogate: Surrogate = logistic,
    each_positive: bool = False,
    negatives_a_positive: float | None = None,
) -> Tensor:
    """DR loss as its authors released it: all logits as one set, both sides by boolean indexing, softmax weights.

    each_positive: their NegOnly, the mean over positives. negatives_a_positive: the largest so many negatives only.
    """
    logits, labels = torch.cat(list(levels), dim=1).flatten(0, 1), labels.flatten().unsqueeze(1)
    classes = torch.arange(logits.shape[1], device=logits.device)
    positives = logits[labels == classes].sigmoid()
    negatives = logits[(labels != classes) & (labels != IGNORED)].sigmoid()
    if negatives_a_positive is not None:
        negatives = negatives.topk(round(negatives_a_positive * len(positives))).values
    p_neg = (F.softmax(negatives / LAMBDA_NEG, dim=0) * negatives).sum()
    if each_positive:
        return TAU * surrogate(p_neg - positives + MARGIN).mean()
    p_pos = (F.softmax(-positives / LAMBDA_POS, dim=0) * positives).sum()
    return TAU * surrogate(p_neg - p_pos + MARGIN)


def torchvision_focal(levels: Sequence[Tensor], labels: Tensor) -> Tensor:
    """As torchvision's RetinaNet calls it: target tensors, the sum over max(1, positives), mean over images."""
    losses = []
    for logits, classes in zip(torch.cat(list(levels), dim=1), labels, strict=True):
        targets, valid = _targets(logits, classes), classes != IGNORED
        total = sigmoid_focal_loss(logits[valid], targets[valid], reduction="sum")
        losses.append(total / max(1, int((classes >= 0).sum())))
    return torch.stack(losses).mean()


def usual_cross_entropy(levels: Sequence[Tensor], labels: Tensor) -> Tensor:
    """torch's binary cross entropy over a target tensor, divided by positives + images."""
    logits, classes = torch.cat(list(levels), dim=1).flatten(0, 1), labels.flatten()
    targets, valid = _targets(logits, classes), classes != IGNORED
    total = F.binary_cross_entropy_with_logits(logits[valid], targets[valid], reduction="sum")
    return total / ((classes >= 0).sum() + len(labels))


def _targets(logits: Tensor, classes: Tensor) -> Tensor:
    """One where an anchor's class is, else zero: [R, K]."""
    targets = torch.zeros_like(logits)
    is_pos = classes >= 0
    targets[is_pos, classes[is_pos]] = 1.0
    return targets
