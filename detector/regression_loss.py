"""Box regression loss over positive anchors. N images, R anchors, P positives of a group."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from detector.box_coder import encode
from detector.job import BoxConvention, RegressionSettings


def box_regression_loss(
    deltas: Tensor,
    anchors: Tensor,
    boxes: Tensor,
    labels: Tensor,
    settings: RegressionSettings,
    *,
    convention: BoxConvention,
    images_per_group: int,
) -> Tensor:
    """Smooth L1 (Fast R-CNN, Eq. 3; quadratic below ``beta``, L1 if that is 0), mean over groups of consecutive images.

    A group's loss is the sum over its positives and coordinates, divided by max(1, normalizer * P).
    deltas: [N, R, 4] outputs of the head; anchors: [R, 4]; labels: [N, R], positive where >= 0; boxes: [N, R, 4] each
    anchor's box, elsewhere any with positive sides -> scalar, float32 or the deltas' float64; 0, with zero gradients,
    without positives. Anchors are masked rather than selected, so that the device is not waited for.
    """
    positive = labels >= 0
    with torch.no_grad():
        targets = encode(boxes, anchors, settings.box_weights, convention)
    deltas = deltas if deltas.dtype == torch.float64 else deltas.float()
    loss = F.smooth_l1_loss(deltas, targets, beta=settings.beta, reduction="none")
    image_loss = torch.where(positive[..., None], loss, 0.0).sum(dim=(1, 2))
    group_loss = torch.stack([group.sum() for group in torch.split(image_loss, images_per_group)])
    num_positives = torch.stack([group.sum() for group in torch.split(positive, images_per_group)])
    return (group_loss / (settings.normalizer * num_positives).clamp(min=1.0)).mean()
