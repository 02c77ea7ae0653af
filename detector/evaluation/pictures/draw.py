"""A picture of an image with its boxes: small images enlarged, labels beside the objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from detector.evaluation.pictures.labels import margins, place_labels
from detector.evaluation.pictures.marks import PAPER, Mark, Points, ink_on
from detector.evaluation.pictures.strokes import Font, draw_box, draw_points, font_of, text_size, write

READABLE: Final = 640  # pixels: an image whose long side is at most half of it is enlarged
LEAST_FONT, MOST_FONT = 13, 160  # pixels
MOST_LABELS: Final = 200
_PAD = 3  # pixels around a label's letters


@dataclass(frozen=True)
class Drawn:
    """factor: pixels of the picture for each of the image's, whole where it was enlarged; unlabelled: boxes without a
    place for their label; inset: where the image begins on the picture, from the left and the top.
    """

    picture: Image.Image
    factor: float
    unlabelled: int
    inset: tuple[int, int]


@dataclass(frozen=True, eq=False)
class _Layout:
    boxes: NDArray[np.float64]  # [M, 4] in pixels of the scaled image
    places: list[tuple[float, float] | None]  # [M]
    sizes: NDArray[np.float64]  # [M, 2]


def factor_of(size: tuple[int, int], *, readable: int = READABLE, most: int | None = None) -> float:
    """How much an image is enlarged (a whole number) or, where its long side is above ``most``, reduced."""
    long = max(size)
    if most is not None and long > most:
        return most / long
    return float(max(1, readable // long))


def draw(
    image: Image.Image,
    marks: Sequence[Mark],
    points: Sequence[Points] = (),
    *,
    readable: int = READABLE,
    most: int | None = None,
    font_size: int | None = None,
) -> Drawn:
    """A picture of the image (RGB) with marks and points. The first marks are the most important: drawn last, on top.

    readable, most: as for ``factor_of``. font_size: in pixels; None: by the size of the picture.
    """
    factor = factor_of(image.size, readable=readable, most=most)
    scaled = _scaled(image, factor)
    long = max(scaled.size)
    font = font_of(font_size or min(MOST_FONT, max(LEAST_FONT, round(long / 48))))
    width = max(2, round(long / 400))
    layout = _layout(marks, factor, font, scaled.size)
    left, top, right, bottom = margins(layout.places, layout.sizes, scaled.size)
    picture = Image.new("RGB", (scaled.width + left + right, scaled.height + top + bottom), PAPER)
    picture.paste(scaled, (left, top))
    moved = layout.boxes + np.array([left, top, left, top])
    for mark, box in zip(reversed(marks), moved[::-1].tolist(), strict=True):
        draw_box(picture, tuple(box), mark, width)
    pen = ImageDraw.Draw(picture)
    for some in points:
        draw_points(pen, some, factor, (left, top), width)
    for mark, box, place, size in zip(marks, moved.tolist(), layout.places, layout.sizes.tolist(), strict=True):
        if place is not None:
            _label(pen, mark, box, (place[0] + left, place[1] + top), size, font)
    unlabelled = sum(place is None and bool(mark.text) for mark, place in zip(marks, layout.places, strict=True))
    return Drawn(picture, factor, unlabelled, (left, top))


def _scaled(image: Image.Image, factor: float) -> Image.Image:
    if factor == 1:
        return image
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.BICUBIC if factor > 1 else Image.Resampling.LANCZOS)


def _layout(marks: Sequence[Mark], factor: float, font: Font, size: tuple[int, int]) -> _Layout:
    boxes = np.array([mark.box for mark in marks], dtype=np.float64).reshape(-1, 4) * factor
    boxes = np.clip(boxes, -1, np.tile(size, 2))  # a box may leave its image by any distance
    sizes = np.zeros((len(marks), 2))
    for number, mark in enumerate(marks[:MOST_LABELS]):
        if mark.text:
            width, height = text_size(mark.text, font)
            sizes[number] = width + 2 * _PAD, height + 2 * _PAD - 2
    return _Layout(boxes, place_labels(boxes, sizes, size), sizes)


def _label(
    pen: ImageDraw.ImageDraw,
    mark: Mark,
    box: Sequence[float],
    at: tuple[float, float],
    size: Sequence[float],
    font: Font,
) -> None:
    """A chip of the mark's colour with its text, and a line to the box where it stands apart."""
    x1, y1, x2, y2 = at[0], at[1], at[0] + size[0], at[1] + size[1]
    to = min(max((x1 + x2) / 2, box[0]), box[2]), min(max((y1 + y2) / 2, box[1]), box[3])
    start = min(max(to[0], x1), x2), min(max(to[1], y1), y2)
    if max(abs(to[0] - start[0]), abs(to[1] - start[1])) > 4:
        pen.line((*start, *to), fill=PAPER, width=3)
        pen.line((*start, *to), fill=mark.colour, width=1)
    pen.rectangle((round(x1), round(y1), round(x2) - 1, round(y2) - 1), fill=mark.colour)
    write(pen, (x1 + _PAD, y1 + _PAD - 1), mark.text, font, ink_on(mark.colour))
