"""Pictures of images of every size, with names of every kind."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from detector.evaluation.detect import draw_found
from detector.evaluation.load import Found
from detector.evaluation.pictures.draw import draw, factor_of
from detector.evaluation.pictures.frame import beside, framed, jpeg, placeholder, title_height
from detector.evaluation.pictures.marks import (
    COLOURS,
    GREEN,
    GREY,
    VERMILION,
    Key,
    Line,
    Mark,
    Points,
    short_name,
)

NAMES = ("x" * 1000, "日本 naïve", "\x1b[31m\u202e\ud800", "<b>&amp;\n\t", "", "a" * 30 + "\N{PILE OF POO}")


@pytest.mark.parametrize(
    ("size", "factor"),
    [((33, 33), 19), ((1, 1), 640), ((96, 64), 6), ((320, 200), 2), ((321, 20), 1), ((640, 480), 1), ((10_000, 9), 1)],
)
def test_small_images_are_enlarged_by_a_whole_factor_and_none_reduced(size: tuple[int, int], factor: int) -> None:
    drawn = draw(Image.new("RGB", size), [])
    assert drawn.factor == factor_of(size) == factor
    assert drawn.picture.size == (size[0] * factor, size[1] * factor)


def test_a_picture_of_at_most_so_many_pixels_is_reduced() -> None:
    drawn = draw(Image.new("RGB", (4000, 1000)), [Mark((0, 0, 4000, 1000), "all", GREEN)], most=800)
    assert drawn.factor == 0.2
    assert drawn.picture.width <= 800 + 10


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (33, 33), (700, 500)])
@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_drawn_on_any_image_and_the_label_off_the_object(size: tuple[int, int], name: str) -> None:
    box = (size[0] * 0.25, size[1] * 0.25, size[0] * 0.75, size[1] * 0.75)
    drawn = draw_found(
        Image.new("RGB", size, "#123456"), [Found(name, 0.5, box), Found(name, 0.4, (-1e9, -5, 1e9, 1e9))]
    )
    assert drawn.unlabelled == 0
    if min(size) < 300:
        return
    x, y = (round(part) for part in ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2))
    assert drawn.picture.getpixel((x + drawn.inset[0], y + drawn.inset[1])) == (0x12, 0x34, 0x56)


def test_a_name_in_a_label_is_short_and_acts_on_nothing() -> None:
    assert short_name("x" * 1000) == "x" * 23 + "…"
    assert short_name("\x1b[31m\u202e\ud800\n") == r"\x1b[31m\u202e\ud800\n"


def test_lines_are_told_apart_without_their_colours() -> None:
    def share(line: Line) -> float:
        drawn = draw(Image.new("RGB", (400, 400), "#808080"), [Mark((50, 50, 350, 350), "", GREEN, line)])
        side = np.asarray(drawn.picture)[50, 60:340]
        return float((side == (0, 0x9E, 0x73)).all(axis=1).mean())

    assert share("solid") == 1
    assert share("dashed") == pytest.approx(5 / 8, abs=0.05)
    assert share("dotted") == pytest.approx(1 / 2, abs=0.08)


def test_dots_have_their_colour_and_no_light_between_them() -> None:
    drawn = draw(Image.new("RGB", (400, 400), "#808080"), [Mark((50, 50, 350, 350), "", GREEN, "dotted")])
    side = np.asarray(drawn.picture)[50, 60:340].tolist()
    assert {tuple(pixel) for pixel in side} == {(0, 0x9E, 0x73), (0x80, 0x80, 0x80)}


@pytest.mark.parametrize("line", ["dashed", "dotted"])
def test_lines_of_a_box_of_few_pixels_are_broken_too(line: Line) -> None:
    drawn = draw(Image.new("RGB", (700, 400), "#808080"), [Mark((50, 50, 59, 59), "", GREEN, line)])
    assert tuple(np.asarray(drawn.picture)[50, 54].tolist()) != (0, 0x9E, 0x73)


def test_no_line_from_a_label_to_its_box_crosses_another_label(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    for name in ("_lead", "_chip"):
        monkeypatch.setattr(f"detector.evaluation.pictures.draw.{name}", lambda *_, name=name: drawn.append(name))
    draw(Image.new("RGB", (640, 480)), [Mark((200, 200, 300, 300), "words", GREEN)] * 3)
    assert drawn == ["_lead"] * 3 + ["_chip"] * 3


@pytest.mark.parametrize(
    ("size", "smallest", "factor"),
    [
        ((640, 480), 30, 1),
        ((640, 480), 24, 1),
        ((640, 480), 12, 2),
        ((640, 480), 1, 2),  # of at most 1600 pixels
        ((500, 400), 8, 3),
        ((1600, 900), 5, 1),
        ((5000, 100), 5, 1600 / 5000),
        ((96, 96), 1, 16),
        ((96, 96), 40, 6),
        ((640, 480), 0, 2),
    ],
)
def test_images_with_small_objects_are_enlarged_more_where_asked(
    size: tuple[int, int], smallest: float, factor: float
) -> None:
    assert factor_of(size, most=800, smallest=smallest) == factor
    drawn = draw(Image.new("RGB", size), [], most=800, smallest=smallest, font_size=10)
    assert drawn.picture.size == (round(size[0] * factor), round(size[1] * factor))
    assert 10 <= drawn.font_size <= 10 * max(2, factor)


def test_a_hatched_region_leaves_the_image_visible() -> None:
    image = Image.new("RGB", (400, 400), "#204060")
    part = np.asarray(draw(image, [Mark((50, 50, 350, 350), "", GREY, hatched=True)]).picture)[60:340, 60:340]
    same = (part == (0x20, 0x40, 0x60)).all(axis=2).mean()
    assert 0.5 < same < 0.95


def test_points_lie_where_they_are_in_the_image() -> None:
    drawn = draw(Image.new("RGB", (64, 64)), [], [Points(np.array([[10.5, 20.5]]), VERMILION)])
    assert drawn.picture.getpixel((105, 205)) == (0xD5, 0x5E, 0)


def test_more_than_seven_categories_differ_by_their_line() -> None:
    found = [Found(f"class {i:02d}", 0.9, (20, 20, 300, 300)) for i in range(8)]
    one, eighth = (
        np.asarray(draw_found(Image.new("RGB", (400, 400)), [entry]).picture) for entry in (found[0], found[7])
    )
    assert (one == eighth).mean() > 0.9  # alone, each has the first colour
    many = draw_found(Image.new("RGB", (400, 400)), found).picture
    assert {tuple(pixel) for pixel in np.asarray(many).reshape(-1, 3).tolist()} >= {
        tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in COLOURS
    }


def test_a_frame_wraps_its_title_and_keeps_its_legend_inside() -> None:
    picture, title = Image.new("RGB", (40, 40)), ["a title of many words " * 6 + "w" * 200]
    page = framed(picture, title, [Key(f"key number {i}", GREEN, "dashed") for i in range(5)])
    assert page.width == 300
    assert page.height > 40 + title_height(title, 40) > 120
    assert framed(picture, [], []).size == (300, 40)
    key = Key("a key that is wider than any picture of so few pixels", GREEN)
    wide = np.asarray(framed(picture, [], [key], font_size=20))
    assert (wide[:, -8:] == 255).all()  # its last letter is on the page
    assert wide.shape[1] > 400
    assert beside([page, picture]).size == (348, page.height)


def test_a_placeholder_and_jpegs_keep_their_bounds() -> None:
    page = placeholder((10_000, 1), "the file is missing " * 40)
    assert page.size == (640, 150)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8))
    best = len(jpeg(noise))
    assert len(jpeg(noise, most=best - 1)) < best
    assert jpeg(noise, most=1) == jpeg(noise, most=2)
    assert len(jpeg(noise, most=1)) < best / 2
