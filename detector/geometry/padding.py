"""The padded shape of a batch."""

from __future__ import annotations

from collections.abc import Sequence

Shape = tuple[int, int]  # height, width
SIZE_DIVISOR = 32


def padded_shape(shapes: Sequence[Shape]) -> Shape:
    """(H, W) of the batch that holds images of these shapes: the largest, rounded up to a multiple of 32."""
    height, width = (-(-max(sides) // SIZE_DIVISOR) * SIZE_DIVISOR for sides in zip(*shapes, strict=True))
    return height, width
