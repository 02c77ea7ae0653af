"""A picture of an image with its boxes: small images enlarged, labels beside the objects."""

from __future__ import annotations

import math
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
LEAST_BOX: Final = 24  # pixels: an image with a smaller object is enlarged more, where that is asked for
LONGEST: Final = 1600  # pixels of the long side of a picture that is enlarged for that
LEAST_FONT, MOST_FONT = 13, 160  # pixels
MOST_LABELS: Final = 200
_PAD = 3  # pixels around a label's letters


@dataclass(frozen=True)
class Drawn:
    """factor: pixels of the picture for each of the image's, whole where it was enlarged; unlabelled: boxes without a
    place for their label; inset: where the image begins on the picture, from the left and the top; font_size: of the
    labels.
    """

    picture: Image.Image
    factor: float
    unlabelled: int
    inset: tuple[int, int]
    font_size: int


@dataclass(frozen=True, eq=False)
class _Layout:
    boxes: NDArray[np.float64]  # [M, 4] in pixels of the scaled image
    places: list[tuple[float, float] | None]  # [M]
    sizes: NDArray[np.float64]  # [M, 2]


@dataclass(frozen=True)
class _Label:
    """A label that has a place. box, at (its upper left corner), size: in pixels of the picture."""

    mark: Mark
    box: Sequence[float]
    at: tuple[float, float]
    size: Sequence[float]


def factor_of(
    size: tuple[int, int], *, readable: int = READABLE, most: int | None = None, smallest: float | None = None
) -> float:
    """How much an image is enlarged (a whole number) or, where its long side is above ``most``, reduced.

    smallest: shorter side of the smallest object in pixels; for one below ``LEAST_BOX`` the picture becomes larger
    than ``most`` and ``readable`` say, up to ``LONGEST``. None: objects do not matter.
    """
    long = max(size)
    plain = most / long if most is not None and long > most else float(max(1, readable // long))
    if smallest is None or smallest * plain >= LEAST_BOX:
        return plain
    larger = min(math.ceil(LEAST_BOX / max(smallest, 1)), LONGEST / long)
    return max(plain, larger if larger < 1 else float(int(larger)))


def draw(
    image: Image.Image,
    marks: Sequence[Mark],
    points: Sequence[Points] = (),
    *,
    readable: int = READABLE,
    most: int | None = None,
    smallest: float | None = None,
    font_size: int | None = None,
) -> Drawn:
    """A picture of the image (RGB) with marks and points. The first marks are the most important: drawn last, on top.

    readable, most, smallest: as for ``factor_of``. font_size: in pixels, and larger where the picture is for small
    objects; None: by the size of the picture.
    """
    factor = factor_of(image.size, readable=readable, most=most, smallest=smallest)
    larger = factor / factor_of(image.size, readable=readable, most=most)
    scaled = _scaled(image, factor)
    long = max(scaled.size)
    letters = min(MOST_FONT, max(LEAST_FONT, round(long / 48)))
    if font_size:  # they grow by less than the picture: where objects are small there are many labels
        letters = round(font_size * (0.4 + 0.6 * larger))
    font = font_of(letters)
    width = max(2, round(long / 400 / larger))  # thin lines: they hide less of small objects
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
    labels = [
        _Label(mark, box, (place[0] + left, place[1] + top), size)
        for mark, box, place, size in zip(marks, moved.tolist(), layout.places, layout.sizes.tolist(), strict=True)
        if place is not None
    ]
    for label in labels:  # all lines first: none crosses another label's letters
        _lead(pen, label)
    for label in labels:
        _chip(pen, label, font)
    unlabelled = sum(place is None and bool(mark.text) for mark, place in zip(marks, layout.places, strict=True))
    return Drawn(picture, factor, unlabelled, (left, top), letters)


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


def _lead(pen: ImageDraw.ImageDraw, label: _Label) -> None:
    """A line from a label to its box, where it stands apart."""
    (x, y), (width, height), box = label.at, label.size, label.box
    to = min(max(x + width / 2, box[0]), box[2]), min(max(y + height / 2, box[1]), box[3])
    start = min(max(to[0], x), x + width), min(max(to[1], y), y + height)
    if max(abs(to[0] - start[0]), abs(to[1] - start[1])) > 4:
        pen.line((*start, *to), fill=PAPER, width=3)
        pen.line((*start, *to), fill=label.mark.colour, width=1)


def _chip(pen: ImageDraw.ImageDraw, label: _Label, font: Font) -> None:
    """The text on a ground of the mark's colour."""
    (x, y), (width, height), colour = label.at, label.size, label.mark.colour
    pen.rectangle((round(x), round(y), round(x + width) - 1, round(y + height) - 1), fill=colour)
    write(pen, (x + _PAD, y + _PAD - 1), label.mark.text, font, ink_on(colour))
