"""Anchors against hand-computed boxes and torchvision's generator."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from detector.model.anchors import AnchorSettings, cell_anchors, grid_anchors

RATIOS = (0.5, 1.0, 2.0)
SQUARE = AnchorSettings(scale=1.0, scales_per_octave=1, aspect_ratios=(1.0,))
RETINANET = AnchorSettings(scale=4.0, scales_per_octave=3, aspect_ratios=RATIOS)


def test_cell_anchors_are_ratio_major_with_rounded_half_sides() -> None:
    anchors = cell_anchors(8, RETINANET)

    # Sizes 32, 40.3 -> 40, 50.8 -> 50. Half sides at height / width = 0.5: 32 / 2 * sqrt(2) = 22.6 and 11.3;
    # 28.3 and 14.1; 35.4 and 17.7.
    half = [(23, 11), (28, 14), (35, 18), (16, 16), (20, 20), (25, 25), (11, 23), (14, 28), (18, 35)]
    assert anchors.tolist() == [[-w, -h, w, h] for w, h in half]
    assert anchors.dtype == torch.float32


def test_cell_anchors_keep_area_over_ratios_up_to_rounding() -> None:
    anchors = cell_anchors(128, replace(RETINANET, scales_per_octave=1))

    area = (anchors[:, 2] - anchors[:, 0]) * (anchors[:, 3] - anchors[:, 1])
    torch.testing.assert_close(area, torch.full((3,), 512.0**2), rtol=0.005, atol=0)


def test_grid_anchors_run_along_rows_and_are_centred_on_stride_multiples() -> None:
    fine, coarse = grid_anchors(((2, 3), (1, 2)), (8, 16), SQUARE, image_shape=(32, 48))

    centre = (fine[:, :2] + fine[:, 2:]) / 2
    assert centre.tolist() == [[0, 0], [8, 0], [16, 0], [0, 8], [8, 8], [16, 8]]
    assert coarse.tolist() == [[-8, -8, 8, 8], [8, -8, 24, 8]]


@pytest.mark.parametrize("size", [(128, 256), (384, 128)])
def test_grid_anchors_equal_torchvision_where_sizes_divide_by_the_strides(size: tuple[int, int]) -> None:
    strides = (8, 16, 32, 64, 128)
    shapes = tuple((size[0] // stride, size[1] // stride) for stride in strides)
    sizes = tuple(tuple(int(4 * stride * 2 ** (i / 3)) for i in range(3)) for stride in strides)
    theirs = AnchorGenerator(sizes, (RATIOS,) * 5)(
        ImageList(torch.zeros(1, 3, *size), [size]), [torch.zeros(1, 1, *shape) for shape in shapes]
    )

    ours = grid_anchors(shapes, strides, RETINANET, image_shape=size)

    assert torch.equal(torch.cat(ours), theirs[0])


def test_grid_anchors_keep_the_nominal_stride_where_the_image_does_not_divide() -> None:
    # 160 pixels at stride 128 are 2 cells; spreading them over the image would put the second one at 80.
    (anchors,) = grid_anchors(((1, 2),), (128,), SQUARE, image_shape=(32, 48))

    assert anchors[1].tolist() == [64, -64, 192, 64]


def test_grid_anchors_first_made_in_inference_mode_serve_autograd() -> None:
    key = ((5, 7),), (24,)
    with torch.inference_mode():
        grid_anchors(*key, SQUARE, image_shape=(32, 48))
    scale = torch.ones((), requires_grad=True)

    (scale * grid_anchors(*key, SQUARE, image_shape=(32, 48))[0]).sum().backward()

    # Sum over 5 x 7 centres, x and y twice each: 24 * 2 * (5 * 21 + 7 * 10).
    assert scale.grad == 24 * 2 * (5 * 21 + 7 * 10)


def test_grid_anchors_are_shared_for_one_shape() -> None:
    first = grid_anchors(((3, 3),), (8,), SQUARE, image_shape=(24, 24))[0]
    assert first is grid_anchors(((3, 3),), (8,), SQUARE, image_shape=(32, 48))[0]
    assert len(grid_anchors(((3, 4),), (8,), SQUARE, image_shape=(32, 48))[0]) == 12


def test_grid_anchors_refuse_shapes_without_strides() -> None:
    with pytest.raises(ValueError, match="shorter"):
        grid_anchors(((3, 3), (2, 2)), (8,), SQUARE, image_shape=(32, 48))
