"""A slim RetinaNet for tests, with the images and boxes to put into it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detector.model.retinanet import RetinaNet
from detector.runs.job import MatchSettings, ModelSettings, RegressionSettings, TestSettings
from drloss.labels import BACKGROUND

SLIM: dict[str, Any] = {
    "backbone": "slim",
    "weights": "none",
    "norm": "group",
    "frozen_stages": 0,
    "fpn_channels": 48,
    "fpn_levels": (3, 5),
    "p6_from": "p5",
    "head_convs": 2,
    "head_norm": "group",
    "anchor_scale": 2.0,
    "scales_per_octave": 3,
    "aspect_ratios": (0.5, 1.0, 2.0),
    "prior_probability": 0.1,
}
RESNET50 = SLIM | {
    "backbone": "resnet50",
    "norm": "frozen_batch",
    "frozen_stages": 2,
    "fpn_channels": 256,
    "fpn_levels": (3, 7),
    "head_convs": 4,
    "head_norm": "none",
    "anchor_scale": 4.0,
}
MATCHING = MatchSettings(foreground_iou=0.5, background_iou=0.4, allow_low_quality=True)
REGRESSION = RegressionSettings(box_weights=(10.0, 10.0, 5.0, 5.0), beta=0.11, normalizer=4.0)
TEST = TestSettings(
    short_sides=(64,),
    max_size=64,
    flip=False,
    score_threshold=0.05,
    candidates_per_level=100,
    nms_iou=0.5,
    detections_per_image=20,
)


class EntropyLoss(nn.Module):
    """Cross entropy over positives, mean over groups; keeps what each group was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[list[tuple[int, ...]], Tensor]] = []

    def forward(self, logits: list[Tensor], labels: Tensor, *, images_per_group: int) -> Tensor:
        levels = zip(*(torch.split(level, images_per_group) for level in logits), strict=True)
        groups = zip(levels, torch.split(labels, images_per_group), strict=True)
        return torch.stack([self._of_group(list(some), chosen) for some, chosen in groups]).mean()

    def _of_group(self, logits: list[Tensor], labels: Tensor) -> Tensor:
        self.calls.append(([tuple(level.shape) for level in logits], labels))
        scores = torch.cat(logits, dim=1).float()
        wanted = F.one_hot(labels.clamp(min=0), scores.shape[-1]) * (labels >= 0)[..., None]
        counted = (labels >= BACKGROUND)[..., None].expand_as(scores)
        loss = F.binary_cross_entropy_with_logits(scores, wanted.float(), reduction="none")
        return loss[counted].sum() / (labels >= 0).sum().clamp(min=1)


def build(settings: dict[str, Any] = SLIM, *, images_per_group: int = 2, seed: int = 0, **changes: Any) -> RetinaNet:
    torch.manual_seed(seed)
    options: dict[str, Any] = {"num_classes": 6, "matching": MATCHING, "regression": REGRESSION, "test": TEST}
    return RetinaNet(
        ModelSettings(**settings),
        classification_loss=EntropyLoss(),
        images_per_group=images_per_group,
        **options | changes,
    )


def calls_of(model: RetinaNet) -> list[tuple[list[tuple[int, ...]], Tensor]]:
    loss = model.criterion.classification_loss
    assert isinstance(loss, EntropyLoss)
    return loss.calls


def image_of(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def target_of(*rows: tuple[float, float, float, float], labels: list[int] | None = None) -> dict[str, Tensor]:
    boxes = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    return {"boxes": boxes, "labels": torch.tensor(labels or [0] * len(rows), dtype=torch.int64)}
