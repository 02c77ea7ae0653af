"""The model in training: losses by groups, gradients where they belong, one image learned by heart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchvision.ops import box_iou

from drloss.labels import BACKGROUND
from tests.small_retinanet import RESNET50, SLIM, build, calls_of, image_of, target_of


def test_losses_are_the_mean_over_groups_each_with_its_own_normalisers() -> None:
    model = build(images_per_group=2)
    images = [image_of(64, 64, seed) for seed in range(5)]
    targets = [
        target_of((8, 8, 40, 40)),
        target_of(),
        target_of((0, 0, 20, 20), (30, 30, 50, 60), labels=[2, 5]),
        target_of((20, 10, 60, 30)),
        target_of((4, 4, 30, 30), labels=[1]),
    ]

    together = model(images, targets)
    alone = [model(images[i : i + 2], targets[i : i + 2]) for i in (0, 2, 4)]

    assert set(together) == {"classification", "bbox_regression"}
    for name, value in together.items():
        assert value.shape == ()
        torch.testing.assert_close(value, torch.stack([losses[name] for losses in alone]).mean())
    sizes = [shapes for shapes, _ in calls_of(model)[:3]]
    assert sizes == [[(n, 576, 6), (n, 144, 6), (n, 36, 6)] for n in (2, 2, 1)]


def test_losses_of_images_without_boxes_train_the_classifier_only() -> None:
    model = build()
    losses = model([image_of(64, 64), image_of(64, 64, 1)], [target_of(), target_of()])
    sum(losses.values()).backward()

    assert losses["bbox_regression"] == 0
    assert losses["classification"] > 0
    for parameter in model.head.regression_head.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()
    assert all((calls[1] == BACKGROUND).all() for calls in calls_of(model))


def test_losses_are_float32_under_autocast() -> None:
    model = build()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model([image_of(64, 64)], [target_of((8, 8, 40, 40))])

    assert losses["bbox_regression"].dtype == torch.float32
    assert losses["bbox_regression"] > 0


@pytest.mark.parametrize("settings", [SLIM, RESNET50 | {"p6_from": "c5"}], ids=["slim", "resnet50"])
def test_gradient_reaches_every_trainable_parameter_and_no_frozen_one(settings: dict[str, Any]) -> None:
    model = build(settings)
    losses = model([image_of(128, 128)], [target_of((8, 8, 100, 100), (4, 4, 30, 40))])
    sum(losses.values()).backward()

    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {name for name, p in model.named_parameters() if p.requires_grad}
    stages = {name.split(".")[2] for name in frozen}
    assert stages == (set() if settings is SLIM else {"conv1", "layer1"})


def test_slim_model_has_450_thousand_parameters() -> None:
    assert sum(p.numel() for p in build().parameters()) == 450_650


def test_slim_model_learns_one_image() -> None:
    model = build(num_classes=3)
    image = torch.full((3, 64, 64), 0.2)
    image[:, 12:44, 20:50] = 0.9
    target = target_of((20, 12, 50, 44), labels=[2])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    for _ in range(60):
        optimizer.zero_grad()
        sum(model([image], [target]).values()).backward()
        optimizer.step()
    model.eval()
    with torch.inference_mode():
        (detections,) = model([image])

    assert detections["labels"][0] == 2
    assert box_iou(detections["boxes"][:1], target["boxes"]).item() > 0.8
    assert detections["scores"][0] > 0.5
