"""The whole model: contract, padding, groups, gradients and learning one image."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_iou

from detector.job import UNIT_RGB, MatchSettings, ModelSettings, RegressionSettings, TestSettings
from detector.postprocess import merge_candidates
from detector.regression_loss import box_regression_loss
from detector.retinanet import RetinaNet, padded_shape
from drloss import BACKGROUND

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
    """Cross entropy over positives; keeps what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[list[tuple[int, ...]], Tensor]] = []

    def forward(self, logits: list[Tensor], labels: Tensor) -> Tensor:
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
    assert isinstance(model.classification_loss, EntropyLoss)
    return model.classification_loss.calls


def image_of(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def target_of(*rows: tuple[float, float, float, float], labels: list[int] | None = None) -> dict[str, Tensor]:
    boxes = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    return {"boxes": boxes, "labels": torch.tensor(labels or [0] * len(rows), dtype=torch.int64)}


# Pixels and padding


def test_padded_shape_rounds_the_largest_sides_up_to_32() -> None:
    assert padded_shape([(800, 1067), (1333, 640)]) == (1344, 1088)
    assert padded_shape([(64, 64)]) == (64, 64)
    assert padded_shape([(1, 33)]) == (32, 64)


def test_batch_is_normalised_then_padded_with_zeros() -> None:
    model = build()
    white, black = torch.full((3, 20, 40), 255, dtype=torch.uint8), torch.zeros(3, 30, 33)

    batch = model.normalized_batch([white, black])

    assert batch.shape == (2, 3, 32, 64)
    for c, (mean, std) in enumerate(zip(UNIT_RGB.mean, UNIT_RGB.std, strict=True)):
        torch.testing.assert_close(batch[0, c, :20, :40], torch.full((20, 40), (1 - mean) / std))
        torch.testing.assert_close(batch[1, c, :30, :33], torch.full((30, 33), -mean / std))
    assert not batch[0, :, 20:].any()
    assert not batch[0, :, :, 40:].any()
    assert not batch[1, :, 30:].any()
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_uint8_and_float_images_are_the_same_input() -> None:
    model, image = build(), image_of(40, 50)

    assert torch.equal(model.normalized_batch([image]), model.normalized_batch([image / 255]))


def test_padding_is_as_pixels_of_the_mean_and_its_anchors_are_background() -> None:
    small, large = image_of(64, 64) / 255, image_of(96, 128, seed=1) / 255
    targets = [target_of((8, 8, 40, 40), labels=[3]), target_of((50, 20, 90, 60))]
    filled = torch.tensor(UNIT_RGB.mean).view(3, 1, 1).expand(3, 96, 128).clone()
    filled[:, :64, :64] = small
    model = build()

    padded, explicit = model([small, large], targets), model([filled, large], targets)

    for name, value in padded.items():
        torch.testing.assert_close(value, explicit[name], rtol=1e-6, atol=0)
    model([small], targets[:1])
    (_, labels), _, (_, alone) = calls_of(model)
    # P3 of 12 x 16 cells with 9 anchors: the box far from the edges is matched as without padding, all else is not.
    p3 = labels[0, : 12 * 16 * 9].view(12, 16, 9)
    assert torch.equal(p3[:8, :8], alone[0, : 8 * 8 * 9].view(8, 8, 9))
    assert (p3[8:] == BACKGROUND).all()
    assert (p3[:, 8:] == BACKGROUND).all()
    assert (alone == 3).any()


@pytest.mark.parametrize("shape", [(17, 9), (32, 32), (1, 1)])
def test_model_takes_images_below_32_pixels(shape: tuple[int, int]) -> None:
    model = build(SLIM | {"fpn_levels": (3, 7)})
    losses = model([image_of(*shape)], [target_of((0, 0, *shape[::-1]))])
    model.eval()
    (detections,) = model([image_of(*shape)])

    assert all(loss.isfinite() for loss in losses.values())
    assert (detections["boxes"] <= torch.tensor([*shape[::-1], *shape[::-1]])).all()


# Losses


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


def test_regression_loss_is_smooth_l1_over_positives_by_hand() -> None:
    settings = RegressionSettings(box_weights=(1.0, 1.0, 1.0, 1.0), beta=0.5, normalizer=2.0)
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 20.0, 20.0], [5.0, 5.0, 6.0, 6.0]])
    boxes = anchors.clone()
    boxes[0] += torch.tensor([10.0, 0.0, 10.0, 0.0])  # dx of 1
    boxes[1] += torch.tensor([4.0, 0.0, 4.0, 0.0])  # dx of 0.2
    boxes[2] += 50.0  # far away, but no positive
    labels = torch.tensor([[3, 0, -1], [-1, -1, -2], [-1, 4, -1]])
    deltas = torch.zeros(3, 3, 4, requires_grad=True)

    loss = box_regression_loss(
        deltas, anchors, boxes.expand(3, 3, 4), labels, settings, convention="modern", images_per_group=2
    )
    loss.backward()

    # 1 -> 1 - 0.5 / 2 = 0.75; 0.2 -> 0.2^2 / (2 * 0.5) = 0.04. Images 0 and 1 have two positives, image 2 has one.
    assert loss.item() == pytest.approx(((0.75 + 0.04) / (2 * 2) + 0.04 / (2 * 1)) / 2)
    assert deltas.grad is not None
    assert (deltas.grad != 0).nonzero().tolist() == [[0, 0, 0], [0, 1, 0], [2, 1, 0]]


def test_regression_loss_divides_by_at_least_one() -> None:
    settings = RegressionSettings(box_weights=(1.0, 1.0, 1.0, 1.0), beta=0.5, normalizer=0.25)
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0]])

    loss = box_regression_loss(
        torch.zeros(1, 1, 4),
        anchors,
        anchors[None] + 10,
        torch.tensor([[0]]),
        settings,
        convention="modern",
        images_per_group=1,
    )

    assert loss.item() == pytest.approx(2 * 0.75)


def test_losses_are_float32_under_autocast() -> None:
    model = build()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model([image_of(64, 64)], [target_of((8, 8, 40, 40))])

    assert losses["bbox_regression"].dtype == torch.float32
    assert losses["bbox_regression"] > 0


# Gradients and learning


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


# Evaluation


def test_detections_are_sorted_inside_the_image_and_follow_the_test_settings() -> None:
    model = build().eval()
    image = image_of(50, 70)
    with torch.inference_mode():
        (detections,) = model([image])
        model.test = TestSettings(
            **{key: getattr(TEST, key) for key in TEST.__struct_fields__} | {"detections_per_image": 3}
        )
        (fewer,) = model([image])

    assert len(detections["boxes"]) == 20
    assert (detections["scores"].diff() <= 0).all()
    assert (detections["boxes"] >= 0).all()
    assert (detections["boxes"] <= torch.tensor([70, 50, 70, 50])).all()
    assert (detections["scores"] > 0.05).all()
    assert torch.equal(fewer["boxes"], detections["boxes"][:3])


def test_detections_do_not_depend_on_the_images_beside() -> None:
    model = build(seed=1).eval()
    image = image_of(64, 96)
    with torch.inference_mode():
        (alone,) = model([image])
        _, beside, _ = model([image_of(64, 96, seed=5), image, torch.zeros(3, 64, 96)])

    torch.testing.assert_close(beside["boxes"], alone["boxes"], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(beside["scores"], alone["scores"], rtol=1e-4, atol=1e-5)
    assert torch.equal(beside["labels"], alone["labels"])


def test_detections_are_the_merged_candidates_of_the_head_outputs() -> None:
    model = build().eval()
    image = image_of(64, 64)
    with torch.inference_mode():
        (found,) = model.candidates([image])
        (detections,) = model([image])
        cls_logits, bbox_regression, anchors = model.head_outputs([image])

    assert [len(level) for level in anchors] == [576, 144, 36]
    assert [tuple(level.shape) for level in cls_logits] == [(1, 576, 6), (1, 144, 6), (1, 36, 6)]
    assert [tuple(level.shape) for level in bbox_regression] == [(1, 576, 4), (1, 144, 4), (1, 36, 4)]
    assert len(found.scores) == 300  # 100 a level; P5 has 216 entries
    best = torch.stack([level.max() for level in cls_logits]).max().sigmoid()
    torch.testing.assert_close(found.scores.max(), best)
    assert torch.equal(merge_candidates([found], TEST, "modern")["boxes"], detections["boxes"])


def test_candidates_of_given_outputs_need_no_forward_pass() -> None:
    model = build().eval()
    image = image_of(64, 64)
    with torch.inference_mode():
        outputs = model.head_outputs([image])
        (expected,) = model.candidates([image])
        for parameter in model.parameters():
            parameter.zero_()
        (found,) = model.candidates([image], outputs)

    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.scores, expected.scores)


def test_untrained_scores_are_the_prior_probability() -> None:
    cls_logits, _, _ = build(SLIM | {"prior_probability": 0.01}).head_outputs([image_of(96, 96)])

    assert torch.cat(cls_logits, dim=1).sigmoid().mean().item() == pytest.approx(0.01, rel=0.1)


# What is refused


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"boxes": torch.zeros(0, 4)}, "Target 1 lacks 'labels'"),
        (target_of((0, 0, 9, 9), (5, 5, 5, 9), labels=[0, 0]), r"Target 1: box 1 is \[5.0, 5.0, 5.0, 9.0\]"),
        (target_of((0, 0, 9, float("nan"))), "box 0 is .*nan"),
        (target_of((0, 0, float("inf"), 9)), "box 0 is .*inf"),
        (target_of((0, 0, 9, 9), (1, 1, 9, 9), labels=[0, 6]), r"label 1 is 6; classes are 0..5"),
        (target_of((0, 0, 9, 9), labels=[-1]), r"label 0 is -1; classes are 0..5"),
        (target_of((0, 0, 9, 9), labels=[1, 2]), r"labels must be int64 of shape \[1\]"),
        ({"boxes": torch.zeros(4), "labels": torch.zeros(1)}, r"boxes must be float of shape \[G, 4\]"),
        ({"boxes": torch.zeros(1, 4, dtype=torch.int64), "labels": torch.zeros(1)}, "boxes must be float"),
        ({"boxes": torch.ones(0, 4), "labels": torch.zeros(0)}, "labels must be int64"),
    ],
)
def test_bad_targets_are_refused_with_the_value_at_fault(target: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()([image_of(32, 32), image_of(32, 32)], [target_of(), target])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "at least one image"),
        ([torch.zeros(1, 32, 32)], r"Image 0 must have shape \[3, H, W\], got \[1, 32, 32\]"),
        ([torch.zeros(3, 32, 32), torch.zeros(3, 0, 32)], "Image 1 must have shape"),
        ([torch.zeros(3, 32, 32, dtype=torch.int64)], "must be uint8"),
    ],
)
def test_bad_images_are_refused(images: list[Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build().eval()(images)


def test_training_without_matching_targets_is_refused() -> None:
    with pytest.raises(ValueError, match="needs targets"):
        build()([image_of(32, 32)])
    with pytest.raises(ValueError, match="1 targets for 2 images"):
        build()([image_of(32, 32)] * 2, [target_of()])


# Exports


def test_importing_detector_does_not_import_torch() -> None:
    code = "import sys, detector; assert 'torch' not in sys.modules; print(sorted(detector.__all__))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "'RetinaNet'" in done.stdout


def test_detector_exports_every_name_it_lists() -> None:
    import detector

    assert detector.RetinaNet is RetinaNet
    assert all(getattr(detector, name) is not None for name in detector.__all__)
    assert set(detector.__all__) <= set(dir(detector))
    with pytest.raises(AttributeError, match="no attribute 'Retina'"):
        detector.Retina  # noqa: B018
