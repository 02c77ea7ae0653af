"""Resize rule, flip, and randomness that depends on (seed, iteration, image) alone."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from detector.data.bilinear import enlarged
from detector.data.transforms import augment, random_generator, resize, resized_pixels, resized_size, to_tensor
from detector.runs.job import AugmentationSettings


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), (1066, 800)),  # 640 * 800 / 480 = 1066.67, truncated
        ((480, 640), (800, 1066)),
        ((500, 500), (800, 800)),
        ((1000, 300), (1333, 400)),  # long side bound: short = round(1333 * 300 / 1000) = 400, long = int(1333.3)
        ((300, 1000), (400, 1333)),
        ((1333, 800), (1333, 800)),
    ],
)
def test_resized_size_follows_the_base_codebase(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized_size(*size, short_side=800, max_size=1333) == expected


def test_resized_size_keeps_a_pixel_for_extreme_shapes() -> None:
    assert resized_size(4000, 1, short_side=800, max_size=1333) == (4000, 1)


def test_resize_returns_the_same_image_when_it_fits() -> None:
    image = Image.new("RGB", (1066, 800))
    assert resize(image, short_side=800, max_size=1333) is image


def test_to_tensor_is_rgb_channels_first_and_expands_grey() -> None:
    image = Image.new("RGB", (3, 2), (10, 20, 30))
    assert to_tensor(image)[:, 0, 0].tolist() == [10, 20, 30]
    assert to_tensor(Image.new("L", (3, 2), 7)).shape == (3, 2, 3)


@hypothesis.settings(deadline=None)
@given(
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    more=st.tuples(st.integers(0, 120), st.integers(0, 120)),
    flip=st.booleans(),
    seed=st.integers(0, 9),
)
def test_enlarged_is_what_pil_gives_to_the_last_bit(
    size: tuple[int, int], more: tuple[int, int], flip: bool, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    target = (size[0] + more[0], size[1] + more[1])
    expected = np.asarray(Image.fromarray(pixels).resize(target, Image.Resampling.BILINEAR))
    found = enlarged(pixels, *target, flip=flip)
    np.testing.assert_array_equal(found, expected[:, ::-1] if flip else expected)


def test_enlarged_weighs_neighbours_by_their_distance() -> None:
    # New centres lie at 0.25, 0.75, 1.25 and 1.75 old pixels, old centres at 0.5 and 1.5.
    row = np.array([[[0, 8, 100], [80, 0, 100]]], dtype=np.uint8)
    found = enlarged(row, 4, 1, flip=False)
    assert found.tolist() == [[[0, 8, 100], [20, 6, 100], [60, 2, 100], [80, 0, 100]]]
    assert enlarged(row, 4, 1, flip=True).tolist() == [found[0, ::-1].tolist()]


def test_enlarged_refuses_to_shrink() -> None:
    with pytest.raises(ValueError, match="3 x 9 is not larger than 4 x 5"):
        enlarged(np.zeros((5, 4, 3), dtype=np.uint8), 3, 9, flip=False)


@pytest.mark.parametrize("short_side", [20, 40, 60])  # smaller, the same, larger
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("flip", [False, True])
def test_resized_pixels_are_those_of_pil(short_side: int, mode: str, flip: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    expected = to_tensor(resize(image, short_side=short_side, max_size=90))
    found = resized_pixels(image, short_side=short_side, max_size=90, flip=flip)
    assert torch.equal(found, expected.flip(-1) if flip else expected)
    assert found.stride() == expected.stride()


@pytest.mark.coco
def test_resized_pixels_of_photographs_are_those_of_pil(coco_tiny: Path) -> None:
    for path in sorted((coco_tiny / "val2017").iterdir())[:12]:
        image = Image.open(path).convert("RGB")
        expected = to_tensor(resize(image, short_side=800, max_size=1333))
        assert torch.equal(resized_pixels(image, short_side=800, max_size=1333), expected)


def settings(**changes: object) -> AugmentationSettings:
    values: dict = {"short_sides": (40,), "max_size": 80, "flip_probability": 0.0, **changes}
    return AugmentationSettings(**values)


def test_augment_scales_boxes_with_the_image() -> None:
    image = Image.new("RGB", (30, 20))
    pixels, boxes = augment(image, np.array([[3.0, 4.0, 15.0, 10.0]]), settings(), random_generator(0, 0, 1), "modern")
    assert pixels.shape == (3, 40, 60)
    np.testing.assert_allclose(boxes, [[6, 8, 30, 20]])


def test_augment_flips_pixels_and_boxes_together() -> None:
    image = Image.new("RGB", (60, 40))
    image.paste((255, 255, 255), (6, 8, 30, 20))
    pixels, boxes = augment(
        image, np.array([[6.0, 8.0, 30.0, 20.0]]), settings(flip_probability=1.0), random_generator(0, 0, 1), "modern"
    )
    np.testing.assert_allclose(boxes, [[30, 8, 54, 20]])
    white = np.argwhere(pixels[0].numpy() == 255)
    assert white.min(axis=0).tolist() == [8, 30]
    assert (white.max(axis=0) + 1).tolist() == [20, 54]


def test_augment_draws_every_short_side_and_about_half_flips() -> None:
    image = Image.new("RGB", (40, 40))
    image.putpixel((0, 0), (255, 255, 255))
    drawn = settings(short_sides=(40, 48, 56), max_size=100, flip_probability=0.5)
    heights, flips = [], 0
    for image_id in range(300):
        pixels, boxes = augment(image, np.array([[0.0, 0, 10, 10]]), drawn, random_generator(0, 0, image_id), "modern")
        heights.append(pixels.shape[1])
        flips += int(boxes[0, 0] > 0)
    counts = [heights.count(side) for side in (40, 48, 56)]
    assert sum(counts) == 300
    assert min(counts) > 70
    assert 120 < flips < 180


def test_random_generator_depends_on_all_of_its_arguments() -> None:
    draws = {args: random_generator(*args).random() for args in [(0, 0, 1), (1, 0, 1), (0, 1, 1), (0, 0, 2)]}
    assert len(set(draws.values())) == 4
    assert random_generator(0, 0, 1).random() == draws[0, 0, 1]
