"""The two conventions of corners, by hand: the last pixel of an image of 100 x 50 is (99, 49), its edge (100, 50)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from detector.data.transforms import augment, random_generator
from detector.geometry.boxes import clipped, from_edges, mirrored, to_edges
from detector.runs.job import AugmentationSettings, BoxConvention

# Over all edges of the image.
OVER = torch.tensor([[-5.0, -5.0, 200.0, 200.0]])


@pytest.mark.parametrize(("convention", "corner"), [("legacy", [99, 49]), ("modern", [100, 50])])
def test_clipped_ends_at_the_last_pixel_or_at_the_edge(convention: BoxConvention, corner: list[int]) -> None:
    assert clipped(OVER, (50, 100), convention).tolist() == [[0, 0, *corner]]


@pytest.mark.parametrize(("convention", "corners"), [("legacy", [6, 8, 29, 19]), ("modern", [6, 8, 30, 20])])
def test_a_box_of_24_by_12_pixels_in_both_conventions(convention: BoxConvention, corners: list[int]) -> None:
    edges = np.array([[6.0, 8.0, 30.0, 20.0]])
    found = from_edges(edges, convention)
    assert found.tolist() == [corners]
    assert to_edges(torch.from_numpy(found), convention).tolist() == edges.tolist()


@pytest.mark.parametrize(
    ("convention", "before", "after"),
    [("legacy", [6, 8, 29, 19], [30, 8, 53, 19]), ("modern", [6, 8, 30, 20], [30, 8, 54, 20])],
)
def test_a_flip_takes_the_box_with_its_pixels(convention: BoxConvention, before: list[int], after: list[int]) -> None:
    image = Image.new("RGB", (60, 40))
    image.paste((255, 255, 255), (6, 8, 30, 20))
    always = AugmentationSettings(short_sides=(40,), max_size=60, flip_probability=1.0)
    pixels, boxes = augment(image, np.array([before], dtype=float), always, random_generator(0, 0, 1), convention)
    assert boxes.tolist() == mirrored(torch.tensor([before]), 60, convention).tolist() == [after]
    white = np.argwhere(pixels[0].numpy() == 255)
    x1, y1, x2, y2 = after
    end = 0 if convention == "legacy" else 1  # a legacy corner is the last white pixel itself
    assert [*white.min(axis=0)[::-1], *(white.max(axis=0)[::-1] + end)] == [x1, y1, x2, y2]
