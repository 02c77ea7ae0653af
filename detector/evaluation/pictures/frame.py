"""What stands around pictures: a title, a legend, two beside each other, and what stands in for a broken image."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Final

from PIL import Image, ImageDraw

from detector.evaluation.pictures.marks import GREY, PAPER, Key, Mark, Points
from detector.evaluation.pictures.strokes import Font, draw_box, draw_points, font_of, text_size, write

LEAST_WIDTH: Final = 300  # pixels, for a title over a narrow image
_GAP = 8
_QUALITIES = (85, 78, 70, 60, 50, 40, 32, 26)


def framed(
    picture: Image.Image, title: Sequence[str], legend: Sequence[Key], *, font_size: int = 14, top: int | None = None
) -> Image.Image:
    """The picture with lines above it and a legend below, wrapped to its width.

    top: height of the part above, for pictures that stand beside each other; None: as high as it must be.
    """
    font = font_of(font_size)
    width = max(LEAST_WIDTH, picture.width, *(_GAP + _key_width(key, font) for key in legend))
    lines = [line for text in title for line in _wrapped(text, font, width - 2 * _GAP)]
    step = text_size("A", font)[1] + 5
    above = max(top or 0, len(lines) * step + _GAP) if lines else top or 0
    rows = _legend_rows(legend, font, width)
    page = Image.new("RGB", (width, above + picture.height + (len(rows) * step + _GAP if rows else 0)), PAPER)
    page.paste(picture, ((width - picture.width) // 2, above))
    pen = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        write(pen, (_GAP, 4 + number * step), line, font)
    for number, row in enumerate(rows):
        y = above + picture.height + 6 + number * step
        for x, key in row:
            _sample(page, (x, y), key, step)
            write(pen, (x + 2 * step, y), key.text, font)
    return page


def title_height(title: Sequence[str], width: int, *, font_size: int = 14) -> int:
    """The height above a picture of this width that ``framed`` would use."""
    font = font_of(font_size)
    room = max(LEAST_WIDTH, width) - 2 * _GAP
    count = sum(len(_wrapped(text, font, room)) for text in title)
    return count * (text_size("A", font)[1] + 5) + _GAP if count else 0


def beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures in a row, their upper edges in line."""
    width = sum(one.width for one in pictures) + _GAP * (len(pictures) - 1)
    page, x = Image.new("RGB", (width, max(one.height for one in pictures)), PAPER), 0
    for one in pictures:
        page.paste(one, (x, 0))
        x += one.width + _GAP
    return page


def placeholder(size: tuple[int, int], why: str) -> Image.Image:
    """What stands in the place of an image that cannot be read: a cross, and the reason."""
    width, height = (min(640, max(LEAST_WIDTH // 2, side)) for side in size)
    page = Image.new("RGB", (max(LEAST_WIDTH, width), max(120, height)), "#E4E4E4")
    pen, font = ImageDraw.Draw(page), font_of(14)
    pen.line((0, 0, page.width, page.height), fill=GREY, width=1)
    pen.line((0, page.height, page.width, 0), fill=GREY, width=1)
    for number, line in enumerate(_wrapped(f"This image cannot be read: {why}", font, page.width - 2 * _GAP)[:6]):
        wide, high = text_size(line, font)
        y = 8 + number * (high + 4)
        pen.rectangle((_GAP - 2, y - 2, _GAP + wide + 2, y + high + 1), fill="#E4E4E4")
        write(pen, (_GAP, y), line, font)
    return page


def jpeg(picture: Image.Image, *, most: int | None = None) -> bytes:
    """The picture as JPEG: the best of some qualities with at most ``most`` bytes, else the least one's."""
    content = b""
    for quality in _QUALITIES:
        file = BytesIO()
        picture.save(file, format="JPEG", quality=quality, optimize=True, progressive=True)
        content = file.getvalue()
        if most is None or len(content) <= most:
            break
    return content


def _sample(page: Image.Image, at: tuple[float, float], key: Key, step: int) -> None:
    x, y = at
    box = (x + 1.0, y + 1.0, x + 1.6 * step, y + step - 6.0)
    if key.shape is None:
        draw_box(page, box, Mark(box, "", key.colour, key.line, key.hatched), 2)
        return
    import numpy as np

    middle = np.array([[(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]])
    draw_points(ImageDraw.Draw(page), Points(middle, key.colour, key.shape), 1.0, (0, 0), 3)


def _legend_rows(legend: Sequence[Key], font: Font, width: int) -> list[list[tuple[float, Key]]]:
    rows: list[list[tuple[float, Key]]] = []
    x = float(width)
    for key in legend:
        wide = _key_width(key, font)
        if x + wide > width and (not rows or rows[-1]):
            rows.append([])
            x = _GAP
        rows[-1].append((x, key))
        x += wide
    return rows


def _key_width(key: Key, font: Font) -> int:
    """Of a key's sample and text, and of the gap to the next."""
    return 2 * (text_size("A", font)[1] + 5) + text_size(key.text, font)[0] + 2 * _GAP


def _wrapped(text: str, font: Font, width: int) -> list[str]:
    """Lines of at most ``width`` pixels, broken between words, and within a word that is longer."""
    lines = [""]
    for word in text.split():
        while word:
            joined = f"{lines[-1]} {word}".strip()
            if text_size(joined, font)[0] <= width:
                lines[-1], word = joined, ""
            elif lines[-1]:
                lines.append("")
            else:
                fits = max(1, next((n for n in range(len(word), 0, -1) if text_size(word[:n], font)[0] <= width), 1))
                lines[-1], word = word[:fits], word[fits:]
                lines.append("")
    return [line for line in lines if line] if text else []
