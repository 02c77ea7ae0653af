"""Images of data sets of every kind with their boxes: odd files, odd boxes, odd names, and ignored anchors."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detector.evaluation.pictures.draw import Drawn
from detector.evaluation.pictures.marks import GREY, ORANGE, VERMILION, Mark
from harness.figures.images.browse import browse
from harness.figures.images.gallery import Gallery, Item
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve
from tests.own_roots import root_of


def page(root: Path, *, ref: str) -> Gallery:
    registry = Registry()
    job = eval_job(resolve(registry, ref, registry.profile("tiny")), 0).train
    return browse(job, root, "val", count=99, setting="a test")


def items(root: Path, *, ref: str = "table2/L6") -> list[Item]:
    (section,) = page(root, ref=ref).sections
    return [draw() for draw in section.pictures]


def sized(item: Item) -> tuple[int, int]:
    with Image.open(BytesIO(item.jpeg)) as image:
        assert image.size == (item.width, item.height)
        return image.size


def root_with(root: Path, image: Image.Image, name: str, boxes: list[dict[str, Any]], **options: object) -> Path:
    """A root whose validation split is this one image."""
    root_of(root, boxes=boxes, size=image.size, images=1)
    image.save(root / "val" / name, **options)
    path = root / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    content["images"][0]["file_name"] = name
    path.write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "I;16"])
def test_images_of_every_common_mode_are_shown(tmp_path: Path, mode: str) -> None:
    image = Image.new("L", (64, 48)) if mode == "I;16" else Image.new("RGB", (64, 48), "#804020")
    root = root_with(tmp_path, image.convert(mode), "image.tiff", [{"bbox": [10, 10, 30, 20]}])
    (item,) = items(root)
    assert not item.unread
    assert sized(item)[0] >= 640


def test_an_image_that_exif_turns_is_shown_as_its_boxes_mean_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    root = root_with(tmp_path, Image.new("RGB", (640, 320)), "turned.jpg", [{"bbox": [600, 10, 30, 20]}], exif=exif)
    (item,) = items(root)
    width, height = sized(item)
    assert (item.unread, width > height) == (False, True)


@pytest.mark.parametrize(("size", "box"), [((5000, 3750), 9), ((16, 16), 4), ((1, 1), 1), ((3000, 12), 8)])
def test_huge_and_tiny_images_have_pictures_of_a_size_to_look_at(
    tmp_path: Path, size: tuple[int, int], box: int
) -> None:
    (item,) = items(root_with(tmp_path, Image.new("RGB", size), "image.png", [{"bbox": [0, 0, box, box]}]))
    assert 300 <= max(sized(item)) <= 1900
    assert f"{size[0]} x {size[1]} pixels: 1 box;" in item.caption


def test_boxes_of_one_pixel_beyond_the_image_and_by_the_hundred(tmp_path: Path) -> None:
    boxes = [{"bbox": [-50, -40, 200, 200]}, {"bbox": [600, 400, 900, 900]}, {"bbox": [9, 9, 1, 1]}]
    many = [{"bbox": [5 + n, 100, 30, 30]} for n in range(500)]
    (item,) = items(root_with(tmp_path / "many", Image.new("RGB", (640, 480)), "image.png", [*boxes, *many]))
    assert "503 boxes" in item.caption
    assert "Boxes without a label, for lack of room: " in item.caption
    assert len(item.table) == 302
    assert item.table[-1][0] == "and 203 more"
    (item,) = items(root_with(tmp_path / "few", Image.new("RGB", (640, 480)), "image.png", boxes))
    assert "label" not in item.caption
    assert [row[2] for row in item.table[1:3]] == ["-50.0, -40.0, 200.0, 200.0", "600.0, 400.0, 900.0, 900.0"]


def test_an_image_without_annotations_says_so_and_has_no_legend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[list[str], list[str]]] = []

    def framed(picture: Image.Image, title: list[str], keys: list[Any], **_: object) -> Image.Image:
        told.append((title, [key.text for key in keys]))
        return picture

    monkeypatch.setattr("detector.evaluation.pictures.frame.framed", framed)
    root_with(tmp_path / "none", Image.new("RGB", (64, 48)), "image.png", [])
    (item,) = items(tmp_path / "none")
    assert told.pop() == (["image 1: no annotations"], [])
    assert ": 0 boxes;" in item.caption
    root_with(tmp_path / "crowd", Image.new("RGB", (64, 48)), "image.png", [{"iscrowd": 1}])
    (item,) = items(tmp_path / "crowd")
    assert told.pop() == (["image 1"], ["crowd"])
    root_with(tmp_path / "one", Image.new("RGB", (96, 96)), "image.png", [{"bbox": [20, 20, 40, 40]}])
    (item,) = items(tmp_path / "one", ref="table2/focal")
    assert told.pop() == (
        ["image 1"],
        ["box and number of its positive anchors", "positive anchors", "ignored anchors"],
    )
    assert int(item.table[1][4]) > 0
    (tmp_path / "one" / "val" / "image.png").write_bytes(b"no image")
    (item,) = items(tmp_path / "one")
    assert told.pop() == (["image 1"], [])  # nothing is drawn that a legend could explain
    assert item.unread


def test_a_box_that_no_anchor_learns_is_called_out_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Mark] = []

    def draw(image: Image.Image, marks: list[Mark], *_: object, **__: object) -> Drawn:
        drawn.extend(marks)
        return Drawn(image, 1, 0, (0, 0), 14)

    monkeypatch.setattr("detector.evaluation.pictures.draw.draw", draw)
    boxes = [{"bbox": [20, 20, 40, 40]}, {"bbox": [70, 70, 3, 3]}, {"bbox": [60, 0, 30, 30], "iscrowd": 1}]
    root = root_with(tmp_path, Image.new("RGB", (96, 96)), "image.png", boxes)
    (item,) = items(root, ref="ablations/focal-no-low-quality")
    assert [(mark.text.split(": ")[1], mark.colour, mark.line, mark.hatched) for mark in drawn] == [
        ("no anchor", VERMILION, "dashed", False),
        ("crowd", GREY, "solid", True),
        (item.table[1][3], ORANGE, "solid", False),
    ]
    assert "2 boxes and 1 crowd region, 1 without an anchor;" in item.caption
    text = " ".join(page(root, ref="ablations/focal-no-low-quality").text)
    assert "anchors are positive from IoU 0.5, ignored from 0.4." in text
    text = " ".join(page(root, ref="table2/L6").text)
    assert "IoU 0.5, none ignored, and the best anchors of each box positive in any case." in text
