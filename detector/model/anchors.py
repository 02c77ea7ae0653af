"""Anchors of a feature pyramid. R anchors in all, A at each location of a feature map.

The order is that of the heads' outputs: level, row, column, then aspect ratio, then scale (scale runs fastest).
Boxes are xyxy pixels, float32, in the padded image; they may reach over its edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from detector.geometry.boxes import PIXEL
from detector.geometry.padding import Shape
from detector.runs.job import BoxConvention, ModelSettings


@dataclass(frozen=True)
class AnchorSettings:
    """Sizes are ``scale * stride * 2^(i / scales_per_octave)`` pixels; the others as in ``ModelSettings``."""

    scale: float
    scales_per_octave: int
    aspect_ratios: tuple[float, ...]
    convention: BoxConvention = "modern"
    rounded: bool = True
    spacing: Literal["nominal", "fitted"] = "nominal"

    @classmethod
    def of(cls, model: ModelSettings, convention: BoxConvention) -> AnchorSettings:
        """The anchors of a model."""
        return cls(
            scale=model.anchor_scale,
            scales_per_octave=model.scales_per_octave,
            aspect_ratios=model.aspect_ratios,
            convention=convention,
            rounded=model.round_anchors,
            spacing=model.anchor_spacing,
        )


def cell_anchors(stride: int, settings: AnchorSettings) -> Tensor:
    """Anchors of one level's first location -> [A, 4], A = number of aspect ratios * scales_per_octave.

    An aspect ratio is height / width and keeps the area (RetinaNet, section 4). Codebases round in different places, so
    that their anchors differ by up to a pixel, and weights want the anchors that they were trained with:

    legacy: around the middle of the pixels 0 .. stride - 1; width and height of each ratio rounded at the size of the
    stride, then scaled (maskrcnn-benchmark).
    modern, rounded: around (0, 0); sizes truncated, half sides rounded half to even (torchvision).
    modern, not rounded: around (0, 0) (Detectron2).
    """
    octave = [settings.scale * 2 ** (i / settings.scales_per_octave) for i in range(settings.scales_per_octave)]
    if settings.convention == "modern" and settings.rounded:
        return _torchvision_cell([float(int(scale * stride)) for scale in octave], settings.aspect_ratios)
    ratios = torch.tensor(settings.aspect_ratios, dtype=torch.float64)
    widths = (stride**2 / ratios).sqrt()
    if settings.rounded:
        widths = widths.round()
    heights = widths * ratios
    if settings.rounded:
        heights = heights.round()
    scales = torch.tensor(octave, dtype=torch.float64)
    one = PIXEL[settings.convention]
    half_w, half_h = (0.5 * ((sides[:, None] * scales).flatten() - one) for sides in (widths, heights))
    centre = 0.5 * (stride - 1) if settings.convention == "legacy" else 0.0
    return torch.stack((centre - half_w, centre - half_h, centre + half_w, centre + half_h), dim=1).float()


def _torchvision_cell(sizes: list[float], aspect_ratios: tuple[float, ...]) -> Tensor:
    """In float32 throughout, because the last bit decides how a half is rounded."""
    size = torch.tensor(sizes, dtype=torch.float32)
    root = torch.tensor(aspect_ratios, dtype=torch.float32).sqrt()
    widths = ((1 / root)[:, None] * size).flatten()
    heights = (root[:, None] * size).flatten()
    return (torch.stack((-widths, -heights, widths, heights), dim=1) / 2).round()


def grid_anchors(
    feature_shapes: tuple[Shape, ...],
    strides: tuple[int, ...],
    settings: AnchorSettings,
    *,
    image_shape: Shape,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, ...]:
    """Anchors of every level -> one [H_l * W_l * A, 4] tensor per level; row y, column x: moved by (x, y) * spacing.

    feature_shapes: (H_l, W_l) of each level; strides: the level's nominal 2^l; image_shape: (H, W) of the padded batch,
    by which a fitted spacing is (H // H_l, W // W_l). Results are cached and shared: do not change them in place.
    """
    if settings.spacing == "nominal":
        spacings = tuple((stride, stride) for stride in strides)
    else:
        spacings = tuple((image_shape[0] // height, image_shape[1] // width) for height, width in feature_shapes)
    return _grid_anchors(feature_shapes, strides, spacings, settings, torch.device(device))


# One entry per padded image shape: COCO at 800 pixels has about 36, of 3.4 MB each.
@lru_cache(maxsize=48)
def _grid_anchors(
    feature_shapes: tuple[Shape, ...],
    strides: tuple[int, ...],
    spacings: tuple[Shape, ...],
    settings: AnchorSettings,
    device: torch.device,
) -> tuple[Tensor, ...]:
    levels = []
    # A tensor made under inference_mode could not take part in a later training step.
    with torch.inference_mode(False):
        for (height, width), stride, (step_y, step_x) in zip(feature_shapes, strides, spacings, strict=True):
            cell = cell_anchors(stride, settings)
            x = torch.arange(width, dtype=torch.float32) * step_x
            y = torch.arange(height, dtype=torch.float32) * step_y
            shift_y, shift_x = torch.meshgrid(y, x, indexing="ij")
            shifts = torch.stack((shift_x, shift_y, shift_x, shift_y), dim=-1).reshape(-1, 1, 4)
            levels.append((shifts + cell).reshape(-1, 4).to(device))
    return tuple(levels)
