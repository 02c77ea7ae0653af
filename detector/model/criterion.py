"""What a training minimises: anchors are matched to boxes, then one loss for classes and one for boxes.

N images, R_l anchors of level l, R of all levels, K classes, G boxes of an image. A group is ``images_per_group``
consecutive images (the last one may have fewer): the paper's batch of one GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Protocol

import torch
from torch import Tensor, nn

from detector.geometry.box_coder import Weights, decode
from detector.geometry.boxes import paired_iou
from detector.model.assign import assign_batch
from detector.model.regression_loss import box_regression_loss
from detector.runs.job import BoxConvention, MatchSettings, RegressionSettings

# How the names of the criterion's own tensors begin in a state dict of ``RetinaNet``; detection needs none of them.
LOSS_STATE: Final = "criterion."


class ClassificationLoss(Protocol):
    """A module that can stand in the focal loss's place.

    logits: a list over levels of [N, R_l, K]. labels: [N, R] int64 in the levels' order: 0..K-1 a class,
    ``drloss.BACKGROUND`` (-1), ``drloss.IGNORED`` (-2). The N images are all of one forward pass, any number of groups.

    Returns the mean over groups, a scalar; or one value per image, [N], of which the criterion takes the mean over the
    images of each group, then over groups. In both cases an image's values may depend on all images of its group (a
    ranking over the batch of one GPU: split logits and labels by ``images_per_group``), and on nothing else.

    A run's identity promises this: how many groups share a forward pass, and how many processes share the groups, does
    not change the result. So a loss must not rank, count or normalise over several groups. The same holds for
    persistent buffers that ``forward`` updates: an update must be a mean over the groups of the call, so that a
    training step can take the mean over all its groups. Checkpoints and final weights carry the buffers; detection does
    without them.

    Compute in float32, under autocast too.
    """

    def __call__(self, logits: list[Tensor], labels: Tensor, *, images_per_group: int) -> Tensor: ...


class IoULoss(Protocol):
    """A ``ClassificationLoss`` that also wants to know how good the positives' boxes are.

    ious: [N, R] float32 (float64 for float64 outputs), without gradient: the IoU of each positive anchor's decoded box
    with the ground-truth box that it learns, in the model's box convention; 0 where an anchor is not positive.
    """

    wants_iou: Literal[True]

    def __call__(self, logits: list[Tensor], labels: Tensor, *, images_per_group: int, ious: Tensor) -> Tensor: ...


class Criterion(nn.Module):
    """Matching and the two losses."""

    def __init__(
        self,
        classification_loss: nn.Module,
        *,
        matching: MatchSettings,
        regression: RegressionSettings,
        images_per_group: int,
        box_convention: BoxConvention,
    ) -> None:
        """classification_loss: a ``ClassificationLoss`` or an ``IoULoss``."""
        super().__init__()
        self.classification_loss = classification_loss
        self.matching = matching
        self.regression = regression
        self.images_per_group = images_per_group
        self.box_convention: BoxConvention = box_convention

    def forward(
        self,
        cls_logits: list[Tensor],
        bbox_regression: list[Tensor],
        anchors: Sequence[Tensor],
        boxes: Tensor,
        box_labels: Tensor,
    ) -> dict[str, Tensor]:
        """The head's outputs and their anchors -> {"classification", "bbox_regression"}, each a mean over groups.

        cls_logits: [N, R_l, K], bbox_regression: [N, R_l, 4], anchors: [R_l, 4], each a sequence over levels;
        boxes: [N, G, 4] and box_labels: [N, G], as ``assign.padded_targets`` makes them. Raises ValueError where the
        classification loss returns another shape than a scalar or [N].
        """
        all_anchors, deltas = torch.cat(list(anchors)), torch.cat(bbox_regression, dim=1)
        assigned = assign_batch(all_anchors, boxes, box_labels, self.matching, self.box_convention)
        regression = box_regression_loss(
            deltas,
            all_anchors,
            boxes,
            assigned,
            self.regression,
            convention=self.box_convention,
            images_per_group=self.images_per_group,
        )
        asked: dict[str, Any] = {}
        if getattr(self.classification_loss, "wants_iou", False):
            weights = self.regression.box_weights
            asked["ious"] = positive_ious(deltas, all_anchors, boxes, assigned, weights, self.box_convention)
        values = self.classification_loss(cls_logits, assigned[0], images_per_group=self.images_per_group, **asked)
        return {"classification": self._mean(values, len(boxes)), "bbox_regression": regression}

    def _mean(self, values: Tensor, num_images: int) -> Tensor:
        """A scalar as it is; of one value per image the mean of each group, then of the groups."""
        if values.shape == ():
            return values
        if values.shape != (num_images,):
            raise ValueError(
                f"{type(self.classification_loss).__name__} returned values of shape {tuple(values.shape)} for "
                f"{num_images} images. Valid: a scalar, or one value per image ({num_images},)."
            )
        return torch.stack([group.mean() for group in torch.split(values, self.images_per_group)]).mean()


@torch.no_grad()
def positive_ious(
    deltas: Tensor,
    anchors: Tensor,
    boxes: Tensor,
    assigned: tuple[Tensor, Tensor],
    box_weights: Weights,
    convention: BoxConvention,
) -> Tensor:
    """IoU of the box that each positive anchor predicts with the box that it learns, [N, R]; 0 for other anchors.

    deltas: [N, R, 4]; anchors: [R, 4]; boxes: [N, G, 4]; assigned: as ``box_regression_loss`` takes it. No gradient.
    """
    labels, matched = assigned
    deltas = deltas.to(torch.promote_types(deltas.dtype, torch.float32))
    if deltas.device.type == "cpu":  # few anchors are positive
        image, anchor = torch.where(labels >= 0)
        predicted = decode(deltas[image, anchor], anchors[anchor], box_weights, convention)
        found = deltas.new_zeros(labels.shape)
        found[image, anchor] = paired_iou(predicted, boxes[image, matched[image, anchor]], convention).to(found.dtype)
        return found
    # To find the positives, the device would be waited for.
    learned = boxes.gather(1, matched[..., None].expand(-1, -1, 4))
    ious = paired_iou(decode(deltas, anchors, box_weights, convention), learned, convention)
    return torch.where(labels >= 0, ious, 0.0)


def without_loss_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What detections depend on in a state dict of ``RetinaNet``: all but the loss's own buffers and parameters."""
    return {name: value for name, value in state.items() if not name.startswith(LOSS_STATE)}
