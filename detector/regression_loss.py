"""Box regression loss over positive anchors. N images, R anchors, G boxes of an image, P positives of a group."""

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
    assigned: tuple[Tensor, Tensor],
    settings: RegressionSettings,
    *,
    convention: BoxConvention,
    images_per_group: int,
) -> Tensor:
    """Smooth L1 (Fast R-CNN, Eq. 3; quadratic below ``beta``, L1 if that is 0), mean over groups of consecutive images.

    A group's loss is the sum over its positives and coordinates, divided by max(1, normalizer * P).
    deltas: [N, R, 4] outputs of the head; anchors: [R, 4]; boxes: [N, G, 4], all with positive sides; assigned: labels
    [N, R], positive where >= 0, and each anchor's box [N, R] -> scalar, float32 or the deltas' float64; 0, with zero
    gradients, without positives.
    """
    labels, matched = assigned
    positive = labels >= 0
    dtype = torch.promote_types(deltas.dtype, torch.float32)

    def loss_of(deltas: Tensor, anchors: Tensor, boxes: Tensor) -> Tensor:
        with torch.no_grad():
            targets = encode(boxes, anchors, settings.box_weights, convention)
        return F.smooth_l1_loss(deltas.to(dtype), targets.to(dtype), beta=settings.beta, reduction="none").sum(dim=-1)

    # Few anchors are positive; but elsewhere than on a CPU, to find them the device would be waited for.
    if deltas.device.type == "cpu":
        image, anchor = torch.where(positive)
        losses = loss_of(deltas[image, anchor], anchors[anchor], boxes[image, matched[image, anchor]])
        image_loss = losses.new_zeros(len(labels)).index_add(0, image, losses)
    else:
        losses = loss_of(deltas, anchors, boxes.gather(1, matched[..., None].expand(-1, -1, 4)))
        image_loss = torch.where(positive, losses, 0.0).sum(dim=1)
    num_positives = _sums(positive.sum(dim=1), images_per_group)
    return (_sums(image_loss, images_per_group) / (settings.normalizer * num_positives).clamp(min=1.0)).mean()


def _sums(values: Tensor, size: int) -> Tensor:
    """Of ``size`` consecutive values each (the last of the rest): [N] -> [ceil(N / size)]."""
    return F.pad(values, (0, -len(values) % size)).view(-1, size).sum(dim=1)
