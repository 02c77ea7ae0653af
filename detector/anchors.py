"""Anchors of a feature pyramid. R anchors in all, A at each location of a feature map.

The order is that of the heads' outputs: level, row, column, then aspect ratio, then scale (scale runs fastest).
Boxes are xyxy pixels, float32, in the padded image; they may reach over its edges.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

Shape = tuple[int, int]  # height, width


def cell_anchors(
    stride: int, *, anchor_scale: float, scales_per_octave: int, aspect_ratios: tuple[float, ...]
) -> Tensor:
    """Anchors around (0, 0) of one level -> [A, 4], A = len(aspect_ratios) * scales_per_octave.

    Sizes are ``anchor_scale * stride * 2^(i / scales_per_octave)``, RetinaNet section 4; an aspect ratio is height /
    width and keeps the area. As in torchvision, sizes are truncated and the box's half sides rounded (half to even) to
    whole pixels: without it, weights trained there would see anchors up to a pixel off.
    """
    octave = [float(int(anchor_scale * stride * 2 ** (i / scales_per_octave))) for i in range(scales_per_octave)]
    sizes = torch.tensor(octave, dtype=torch.float32)
    root = torch.tensor(aspect_ratios, dtype=torch.float32).sqrt()
    widths = ((1 / root)[:, None] * sizes).flatten()
    heights = (root[:, None] * sizes).flatten()
    return (torch.stack((-widths, -heights, widths, heights), dim=1) / 2).round()


def grid_anchors(
    feature_shapes: tuple[Shape, ...],
    strides: tuple[int, ...],
    *,
    anchor_scale: float,
    scales_per_octave: int,
    aspect_ratios: tuple[float, ...],
    device: torch.device | str = "cpu",
) -> tuple[Tensor, ...]:
    """Anchors of every level -> one [H_l * W_l * A, 4] tensor a level; row y, column x is centred on (x, y) * stride.

    feature_shapes: (H_l, W_l) of each level; strides: pixels between its neighbours, the level's nominal 2^l. Results
    are cached and shared: do not change them in place.
    """
    return _grid_anchors(feature_shapes, strides, anchor_scale, scales_per_octave, aspect_ratios, torch.device(device))


# A key for each padded image shape: COCO at 800 pixels has about 36 of them, 3.4 MB each.
@lru_cache(maxsize=48)
def _grid_anchors(
    feature_shapes: tuple[Shape, ...],
    strides: tuple[int, ...],
    anchor_scale: float,
    scales_per_octave: int,
    aspect_ratios: tuple[float, ...],
    device: torch.device,
) -> tuple[Tensor, ...]:
    levels = []
    # A tensor made under inference_mode could not take part in a later training step.
    with torch.inference_mode(False):
        for (height, width), stride in zip(feature_shapes, strides, strict=True):
            cell = cell_anchors(
                stride,
                anchor_scale=anchor_scale,
                scales_per_octave=scales_per_octave,
                aspect_ratios=aspect_ratios,
            )
            x = torch.arange(width, dtype=torch.float32) * stride
            y = torch.arange(height, dtype=torch.float32) * stride
            shift_y, shift_x = torch.meshgrid(y, x, indexing="ij")
            shifts = torch.stack((shift_x, shift_y, shift_x, shift_y), dim=-1).reshape(-1, 1, 4)
            levels.append((shifts + cell).reshape(-1, 4).to(device))
    return tuple(levels)
