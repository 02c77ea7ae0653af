"""Box regression loss over positive anchors. N images, R anchors, G boxes of an image, P positives of a group."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from detector.geometry.box_coder import encode
from detector.geometry.boxes import PIXEL
from detector.kernels.available import usable
from detector.kernels.box_loss import Rule, box_loss
from detector.runs.job import BoxConvention, RegressionSettings


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
    if usable(deltas) and anchors.dtype == boxes.dtype == torch.float32:
        rule = Rule(settings.box_weights, settings.beta, settings.normalizer, PIXEL[convention], images_per_group)
        return box_loss(deltas, anchors, boxes, *assigned, rule)
    # Few anchors are positive. But on another device the step would have to wait for it to know which.
    image_losses = selected_losses if deltas.device.type == "cpu" else masked_losses
    losses = image_losses(deltas, anchors, boxes, assigned, settings, convention)
    num_positives = _sums((assigned[0] >= 0).sum(dim=1), images_per_group)
    return (_sums(losses, images_per_group) / (settings.normalizer * num_positives).clamp(min=1.0)).mean()


def selected_losses(
    deltas: Tensor,
    anchors: Tensor,
    boxes: Tensor,
    assigned: tuple[Tensor, Tensor],
    settings: RegressionSettings,
    convention: BoxConvention,
) -> Tensor:
    """Each image's sum over its positives, [N]; nothing is computed for other anchors."""
    labels, matched = assigned
    image, anchor = torch.where(labels >= 0)
    found = boxes[image, matched[image, anchor]]
    losses = _smooth_l1(
        deltas[image, anchor], encode(found, anchors[anchor], settings.box_weights, convention), settings
    )
    return losses.new_zeros(len(labels)).index_add(0, image, losses)


def masked_losses(
    deltas: Tensor,
    anchors: Tensor,
    boxes: Tensor,
    assigned: tuple[Tensor, Tensor],
    settings: RegressionSettings,
    convention: BoxConvention,
) -> Tensor:
    """The values of ``selected_losses``, computed for all anchors."""
    labels, matched = assigned
    found = boxes.gather(1, matched[..., None].expand(-1, -1, 4))
    losses = _smooth_l1(deltas, encode(found, anchors, settings.box_weights, convention), settings)
    return torch.where(labels >= 0, losses, 0.0).sum(dim=1)


def _smooth_l1(deltas: Tensor, targets: Tensor, settings: RegressionSettings) -> Tensor:
    """Sum over the coordinates: [..., 4] -> [...], float32 or float64."""
    deltas = deltas.to(torch.promote_types(deltas.dtype, torch.float32))
    return F.smooth_l1_loss(deltas, targets.to(deltas.dtype), beta=settings.beta, reduction="none").sum(dim=-1)


def _sums(values: Tensor, size: int) -> Tensor:
    """Sums of ``size`` consecutive values, the last one of what is left: [N] -> [ceil(N / size)]."""
    return F.pad(values, (0, -len(values) % size)).view(-1, size).sum(dim=1)
