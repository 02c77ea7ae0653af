"""Lines, hatching, points and letters on a picture, each with a light edge so that it is seen on any ground."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from detector.evaluation.pictures.marks import INK, PAPER, Line, Mark, Points

Pen = ImageDraw.ImageDraw
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
# Lengths of a stroke and of the gap after it, in widths of the line; None: one stroke.
_PATTERNS: Final[dict[Line, tuple[float, float] | None]] = {"solid": None, "dashed": (5, 3), "dotted": (2, 2)}
_MOST_STROKES = 4000  # of one side: more would be a line of pixels in an enormous image


@cache
def font_of(size: int) -> Font:
    """matplotlib's DejaVu Sans, which has Latin, Greek and Cyrillic letters; where it is not there, Pillow's own.

    A letter that a font does not have is drawn as an empty box.
    """
    found = find_spec("matplotlib")
    if found is not None and found.origin is not None:
        path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size=size)


def text_size(text: str, font: Font) -> tuple[int, int]:
    """Width of a text and height of a line in pixels."""
    left, _, right, _ = font.getbbox(text)
    _, top, _, bottom = font.getbbox("Ag|")
    return int(right - left) + 1, int(bottom - top) + 1


def write(pen: Pen, at: tuple[float, float], text: str, font: Font, colour: str = INK) -> None:
    """A line of text whose letters begin at ``at``, its upper left corner."""
    left, _, _, _ = font.getbbox(text)
    _, top, _, _ = font.getbbox("Ag|")
    pen.text((round(at[0] - left), round(at[1] - top)), text, fill=colour, font=font)


def draw_box(image: Image.Image, box: tuple[float, float, float, float], mark: Mark, width: int) -> None:
    """A box's four sides, in the picture's pixels, and its hatching."""
    x1, y1, x2, y2 = box
    if mark.hatched:
        _hatch(image, box, mark.colour, width)
    pen = ImageDraw.Draw(image)
    sides = [((x1, y1), (x2, y1)), ((x2, y1), (x2, y2)), ((x2, y2), (x1, y2)), ((x1, y2), (x1, y1))]
    strokes = [stroke for side in sides for stroke in _strokes(*side, mark.line, width)]
    half, broken = width / 2, _PATTERNS[mark.line] is not None
    for edge, colour in ((1, PAPER), (0, mark.colour)):
        for (ax, ay), (bx, by) in strokes:
            # No light edge at the ends of short strokes: it would fill the gaps, and dots would look white.
            across, down = (edge * (not broken or ax == bx), edge * (not broken or ay == by))
            low = round(min(ax, bx) - half - across), round(min(ay, by) - half - down)
            high = round(max(ax, bx) + half + across) - 1, round(max(ay, by) + half + down) - 1
            pen.rectangle((*low, *high), fill=colour)


def _strokes(
    start: tuple[float, float], end: tuple[float, float], line: Line, width: int
) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    """The strokes of one side, both of its ends among them; each is drawn half a width longer at either end."""
    pattern, length = _PATTERNS[line], max(abs(end[0] - start[0]), abs(end[1] - start[1]))
    if pattern is None or length < 2 * width:
        yield start, end
        return
    stroke, period = (
        min((pattern[0] - 1) * width, length / 3),
        (pattern[0] + pattern[1]) * width,
    )  # broken at any length
    count = min(_MOST_STROKES, max(1, round((length - stroke) / period)))
    for number in range(count + 1):
        first = (length - stroke) * number / count
        along = [(a + (b - a) * t / length) for t in (first, first + stroke) for a, b in zip(start, end, strict=True)]
        yield (along[0], along[1]), (along[2], along[3])


def _hatch(image: Image.Image, box: tuple[float, float, float, float], colour: str, width: int) -> None:
    """Slanted lines over the part of a box that is on the image; what is below them stays visible."""
    x1, y1 = max(0, round(box[0])), max(0, round(box[1]))
    x2, y2 = min(image.width, round(box[2])), min(image.height, round(box[3]))
    if x2 <= x1 or y2 <= y1:
        return
    mask = Image.new("L", (x2 - x1, y2 - y1), 0)
    pen, step = ImageDraw.Draw(mask), 6 * width
    for offset in range(-mask.height, mask.width, step):
        pen.line((offset, mask.height, offset + mask.height, 0), fill=170, width=max(1, width // 2))
    image.paste(Image.new("RGB", mask.size, colour), (x1, y1), mask)


def draw_points(pen: Pen, points: Points, scale: float, offset: tuple[int, int], width: int) -> None:
    """Dots or crosses. scale: of the picture; offset: where the image begins on it."""
    radius = max(2.2, 0.9 * width)
    for x, y in (points.at * scale + offset).tolist():
        if points.shape == "dot":
            pen.ellipse((x - radius - 1, y - radius - 1, x + radius + 1, y + radius + 1), fill=PAPER)
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=points.colour)
        else:
            arm = radius + 1
            for edge, colour in ((1, PAPER), (0, points.colour)):
                pen.line((x - arm, y - arm, x + arm, y + arm), fill=colour, width=1 + 2 * edge)
                pen.line((x - arm, y + arm, x + arm, y - arm), fill=colour, width=1 + 2 * edge)
