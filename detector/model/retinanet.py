"""RetinaNet with a replaceable classification loss, by torchvision's contract of a detection model.

N images, G boxes of an image, K classes, R_l anchors of level l, R of all levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detector.geometry.padding import padded_shape
from detector.model.anchors import AnchorSettings, grid_anchors
from detector.model.assign import padded_targets
from detector.model.backbone import build_backbone
from detector.model.criterion import LOSS_STATE, Criterion, without_loss_state
from detector.model.head import RetinaNetHead
from detector.model.inputs import check_images, check_targets
from detector.model.postprocess import Candidates, image_candidates, merge_candidates
from detector.runs.job import BoxConvention, MatchSettings, ModelSettings, RegressionSettings, TestSettings

Target = dict[str, Tensor]
# cls_logits [N, R_l, K], bbox_regression [N, R_l, 4] and anchors [R_l, 4], each a sequence over levels.
HeadOutputs = tuple[list[Tensor], list[Tensor], tuple[Tensor, ...]]


class RetinaNet(nn.Module):
    """Focal Loss for Dense Object Detection, section 4; ``classification_loss`` takes the focal loss's place.

    images: list of [3, H, W] RGB tensors of any sizes, uint8 or float in 0..1, on any device: they are moved to the
    model's and normalised there. Training mode: ``model(images, targets) -> {"classification", "bbox_regression"}``
    with targets [{"boxes": [G, 4] xyxy pixels, "labels": [G] int64, 0..K-1}]; eval mode: ``model(images) ->
    [{"boxes", "scores", "labels"}]`` by ``self.test``, which may be reassigned. Eval mode does not switch autograd off.

    A list is padded to its largest height and width, rounded up to a multiple of 32; anchors in the padding are
    background. Normalisers of the losses belong to consecutive groups of ``images_per_group`` images: a forward pass of
    several groups gives the mean of what each group of the same padded shape would give alone.

    Boxes, in targets and in detections, are xyxy pixels in the model's ``box_convention`` (``geometry.boxes``).

    The memory format is channels last, in which the logits [N, R_l, K] are views of the convolutions' outputs.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        settings: ModelSettings,
        *,
        num_classes: int,
        classification_loss: nn.Module,
        matching: MatchSettings,
        regression: RegressionSettings,
        test: TestSettings,
        images_per_group: int,
        box_convention: BoxConvention = "modern",
    ) -> None:
        """Weights are random: ``build_model`` loads what ``settings.weights`` asks for.

        classification_loss: a module as ``criterion.ClassificationLoss`` or ``criterion.IoULoss`` describes it.
        """
        super().__init__()
        self.settings = settings
        self.num_classes = num_classes
        self.test = test
        self.box_weights = regression.box_weights
        self.box_convention: BoxConvention = box_convention
        self.anchor_settings = AnchorSettings.of(settings, box_convention)
        self.backbone = build_backbone(settings)
        self.head = RetinaNetHead(
            settings.fpn_channels,
            settings.scales_per_octave * len(settings.aspect_ratios),
            num_classes,
            num_convs=settings.head_convs,
            norm=settings.head_norm,
            prior_probability=settings.prior_probability,
        )
        self.criterion = Criterion(
            classification_loss,
            matching=matching,
            regression=regression,
            images_per_group=images_per_group,
            box_convention=box_convention,
        )
        self.register_buffer("mean", torch.tensor(settings.pixels.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(settings.pixels.std).view(3, 1, 1), persistent=False)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Sequence[Tensor], targets: Sequence[Target] | None = None) -> Any:
        """Losses in training mode, detections in eval mode.

        Raises ValueError for images or targets that break the contract. Values of targets (degenerate boxes, labels out
        of range) are checked where they are on the CPU; on another device the check would wait for it in every step.
        """
        if not self.training:
            return self.detections(images, self.head_outputs(images))
        if targets is None:
            raise ValueError("RetinaNet in training mode needs targets: call model(images, targets), or model.eval().")
        check_targets(targets, num_images=len(images), num_classes=self.num_classes)
        check_images(images)
        return self.losses(self.normalized_batch(images), *self.padded_targets(targets))

    def losses(self, batch: Tensor, boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """What training mode returns, of images and targets that are one tensor each.

        batch: [N, 3, H, W], as ``normalized_batch`` makes it; boxes: [N, G, 4] and labels: [N, G], as
        ``padded_targets`` makes them.
        """
        losses: dict[str, Tensor] = self.criterion(*self._outputs_of(batch), boxes, labels)
        return losses

    @property
    def matching(self) -> MatchSettings:
        """The rule by which anchors are matched to boxes."""
        return self.criterion.matching

    def detections(self, images: Sequence[Tensor], outputs: HeadOutputs) -> list[dict[str, Tensor]]:
        """Each image's detections from the head's ``outputs``."""
        found = self.candidates(images, outputs)
        return [merge_candidates([of_image], self.test, self.box_convention) for of_image in found]

    def candidates(self, images: Sequence[Tensor], outputs: HeadOutputs | None = None) -> list[Candidates]:
        """Scored boxes of each image before NMS, clipped to it; ``merge_candidates`` makes detections of them.

        outputs: those of ``head_outputs(images)``, where the caller has them already.
        """
        cls_logits, bbox_regression, anchors = outputs or self.head_outputs(images)
        return [
            image_candidates(
                [level[i] for level in cls_logits],
                [level[i] for level in bbox_regression],
                anchors,
                image_shape=(image.shape[-2], image.shape[-1]),
                test=self.test,
                box_weights=self.box_weights,
                convention=self.box_convention,
            )
            for i, image in enumerate(images)
        ]

    def head_outputs(self, images: Sequence[Tensor]) -> HeadOutputs:
        """The raw network's outputs and the anchors that they belong to."""
        check_images(images)
        return self._outputs_of(self.normalized_batch(images))

    def _outputs_of(self, batch: Tensor) -> HeadOutputs:
        cls_logits, bbox_regression = self.head(self.backbone(batch))
        return cls_logits, bbox_regression, self.anchors(batch.shape[-2], batch.shape[-1])

    def anchors(self, height: int, width: int) -> tuple[Tensor, ...]:
        """Those of each level for images padded to that shape, as ``grid_anchors`` caches them."""
        shapes = tuple((-(-height // stride), -(-width // stride)) for stride in self.backbone.strides)
        return grid_anchors(
            shapes, self.backbone.strides, self.anchor_settings, image_shape=(height, width), device=self.mean.device
        )

    def normalized_batch(self, images: Sequence[Tensor], *, out: Tensor | None = None) -> Tensor:
        """Images -> [N, 3, H, W] in the model's dtype, as ``settings.pixels`` says, then padded with zeros.

        out: a tensor of that shape, channels last, to be written and returned; None makes a new one.
        """
        pixels = self.settings.pixels
        if out is None:
            # Colour by colour, as images are stored, is twice as fast as pixel by pixel; one pass reorders them at the
            # end.
            height, width = padded_shape([(image.shape[-2], image.shape[-1]) for image in images])
            batch = self.mean.new_zeros(len(images), 3, height, width)
        else:
            batch = out.zero_()
        for slot, image in zip(batch, images, strict=True):
            values = image.to(self.mean.device, non_blocking=True)
            if values.dtype != torch.uint8:
                values = values * pixels.range if pixels.range != 1 else values
            elif pixels.range == 1:
                values = values / 255
            inside = slot[:, : image.shape[-2], : image.shape[-1]]
            inside.copy_(values.flip(0) if pixels.order == "bgr" else values).sub_(self.mean).div_(self.std)
        return batch.contiguous(memory_format=torch.channels_last)

    def padded_targets(self, targets: Sequence[Target], *, capacity: int = 1) -> tuple[Tensor, Tensor]:
        """Boxes [N, G, 4], float32 as anchors are, and labels [N, G] on the model's device, G at least ``capacity``."""
        return padded_targets(targets, like=self.mean.float(), capacity=capacity)

    def load_for_detection(self, state: Mapping[str, Tensor]) -> None:
        """Load a state dict without what the loss keeps for itself, which detections do not depend on.

        So weights fit whatever buffers the loss had when they were trained. Raises RuntimeError where any other tensor
        is missing, unknown or of another shape.
        """
        own = {name: value for name, value in self.state_dict().items() if name.startswith(LOSS_STATE)}
        self.load_state_dict(without_loss_state(state) | own)
