"""Checks of images and targets against the model's contract; each error names the value at fault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def check_images(images: Sequence[Tensor]) -> None:
    """Raise ValueError unless ``images`` are one or more non-empty [3, H, W] tensors, uint8 or floating point."""
    if len(images) == 0:
        raise ValueError("Expected at least one image, got an empty list.")
    for i, image in enumerate(images):
        if image.ndim != 3 or image.shape[0] != 3 or image.numel() == 0:
            raise ValueError(f"Image {i} must have shape [3, H, W], got {list(image.shape)}.")
        if image.dtype != torch.uint8 and not image.is_floating_point():
            raise ValueError(f"Image {i} must be uint8 (0..255) or float (0..1), got {image.dtype}.")


def check_targets(targets: Sequence[Mapping[str, Tensor]], *, num_images: int, num_classes: int) -> None:
    """Raise ValueError unless every image has a target {"boxes": [G, 4] float, "labels": [G] int64}.

    Values are checked on the CPU only, because reading another device's would wait for it: boxes must be finite with
    x1 < x2 and y1 < y2, labels in 0..num_classes - 1.
    """
    if len(targets) != num_images:
        raise ValueError(f"Expected one target per image, got {len(targets)} targets for {num_images} images.")
    for i, target in enumerate(targets):
        missing = [key for key in ("boxes", "labels") if key not in target]
        if missing:
            raise ValueError(f"Target {i} lacks {missing[0]!r}: it needs 'boxes' and 'labels', got {sorted(target)}.")
        boxes, labels = target["boxes"], target["labels"]
        if boxes.ndim != 2 or boxes.shape[1] != 4 or not boxes.is_floating_point():
            raise ValueError(f"Target {i}: boxes must be float of shape [G, 4], got {boxes.dtype} {list(boxes.shape)}.")
        if labels.shape != boxes.shape[:1] or labels.dtype != torch.int64:
            raise ValueError(
                f"Target {i}: labels must be int64 of shape [{len(boxes)}], one per box, "
                f"got {labels.dtype} {list(labels.shape)}."
            )
        if boxes.device.type == "cpu":
            _check_boxes(i, boxes)
        if labels.device.type == "cpu":
            _check_labels(i, labels, num_classes)


def _check_boxes(i: int, boxes: Tensor) -> None:
    good = boxes.isfinite().all(dim=1) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    if not good.all():
        j = int(good.logical_not().nonzero()[0])
        raise ValueError(
            f"Target {i}: box {j} is {boxes[j].tolist()}; boxes are finite xyxy pixels with x1 < x2 and y1 < y2."
        )


def _check_labels(i: int, labels: Tensor, num_classes: int) -> None:
    bad = (labels < 0) | (labels >= num_classes)
    if bad.any():
        j = int(bad.nonzero()[0])
        raise ValueError(f"Target {i}: label {j} is {int(labels[j])}; classes are 0..{num_classes - 1}.")
