"""What goes into the model: normalised and padded images, images and targets that are refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detector.geometry.padding import padded_shape
from detector.runs.job import UNIT_RGB
from drloss.labels import BACKGROUND
from tests.small_retinanet import SLIM, build, calls_of, image_of, target_of

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


def test_a_batch_can_be_written_into_given_memory() -> None:
    model = build()
    out = torch.full((2, 3, 32, 64), 7.0).to(memory_format=torch.channels_last)
    images = [image_of(20, 40), image_of(30, 33, seed=1)]

    assert model.normalized_batch(images, out=out) is out

    assert torch.equal(out, model.normalized_batch(images))


@pytest.mark.parametrize("backbone", ["slim", "resnet50"])
@pytest.mark.parametrize("shape", [(32, 64), (96, 160), (224, 352)])
def test_anchors_of_a_shape_are_those_of_the_networks_levels(backbone: str, shape: tuple[int, int]) -> None:
    with torch.device("meta"):
        model = build(SLIM | {"backbone": backbone, "fpn_levels": (3, 7)})
        cls_logits, _, _ = model._outputs_of(torch.zeros(1, 3, *shape))

    assert [len(level) for level in model.anchors(*shape)] == [level.shape[1] for level in cls_logits]


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
