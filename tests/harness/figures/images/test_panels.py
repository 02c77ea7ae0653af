"""One image of an evaluation: what each kind of box is drawn with, counted, and pairs in line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from detector.data.coco.index import load_index
from detector.evaluation.detections import Detections
from detector.evaluation.pictures.draw import Drawn
from detector.evaluation.pictures.marks import BLUE, GREEN, GREY, VERMILION, Mark
from detector.evaluation.pictures.outcome import outcomes
from detector.runs.record import Record
from harness.figures.images.panels import SMALL, counts, legend, pair, panel
from harness.figures.images.runs import gallery_of_one
from harness.figures.images.scenes import Scene
from tests.own_roots import SIZE, root_of

OBJECT, CROWD, OTHER = [4.0, 5, 10, 8], [20.0, 0, 20, 30], [4.0, 18, 8, 8]
ON_CROWD = [22.0, 4, 8, 8]


def scene(root: Path, *found: tuple[list[float], float]) -> Scene:
    """The first image with these detections (box as x, y, width, height, and score), drawn from a score of 0.5."""
    if not root.exists():
        root_of(root, boxes=[{"bbox": OBJECT}, {"bbox": CROWD, "iscrowd": 1}, {"bbox": OTHER}])
    index, many = load_index(root, "val"), len(found)
    boxes = np.array([box for box, _ in found], float).reshape(-1, 4)
    scores = np.array([score for _, score in found], float)
    given = Detections(np.full(many, index.image_ids[0]), np.full(many, index.category_ids[0]), boxes, scores)
    return Scene("a run", cast("Record", None), index, outcomes(index, given), 0.5)


def test_each_kind_of_box_has_its_colour_line_and_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Mark] = []

    def draw(image: Image.Image, marks: list[Mark], **_: Any) -> Drawn:
        drawn.extend(marks)
        return Drawn(image, 1, 0, (0, 0), 14)

    monkeypatch.setattr("detector.evaluation.pictures.draw.draw", draw)
    one = scene(
        tmp_path / "root", (OBJECT, 0.9), ([30, 5, 5, 5], 0.4), (OTHER, 0.3), ([0, 0, 3, 3], 0.8), (ON_CROWD, 0.7)
    )
    panel(one, 0, [])
    assert [(mark.text, mark.colour, mark.line, mark.hatched) for mark in drawn] == [
        ("T a 0.90", GREEN, "solid", False),
        ("F a 0.80", VERMILION, "dashed", False),
        ("", GREY, "solid", False),
        ("", GREY, "solid", True),
        ("M a", BLUE, "dotted", False),
    ]
    assert str(counts(one, 0)) == "1 true, 1 false, 1 on a crowd, 1 of 2 objects missed"
    assert [key.text for key in legend([one], 0)] == [
        *("T true", "F false", "M missed"),
        *("crowd", "on a crowd: not counted"),
    ]
    nothing = scene(tmp_path / "root")
    assert str(counts(nothing, 0)) == "0 true, 0 false, 2 of 2 objects missed"
    assert len(legend([nothing], 0)) == 4
    assert len(legend([nothing, one], 0)) == 5  # of either


def test_the_two_images_of_a_pair_are_in_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    scenes = scene(root, ([0.0, 0, 3, 3], 0.8)), scene(root)

    def margins(places: list[object], *_: object) -> tuple[int, int, int, int]:
        return 0, 40 * (len(places) > 3), 0, 0  # above the first, which has a false box more

    monkeypatch.setattr("detector.evaluation.pictures.draw.margins", margins)
    for path in root.glob("*/*.jpg"):
        image = Image.new("RGB", SIZE)
        image.paste("red", (0, SIZE[1] // 2, *SIZE))
        image.save(path)
    pixels = np.asarray(pair(scenes, 0, (["one"], ["two"]), SMALL).picture).astype(int)
    red = (pixels[..., 0] > 200) & (pixels[..., 1] < 60)
    border = red[1:] & ~red[:-1]  # where black becomes red
    half = pixels.shape[1] // 2
    left, right = (int(part.sum(axis=1).argmax()) for part in (border[:, :half], border[:, half:]))
    assert abs(left - right) <= 1
    alone = panel(scenes[1], 0, ["two"], SMALL).picture
    assert pixels.shape[0] > alone.height + 20  # it was lowered


def test_boxes_without_room_for_a_label_are_counted_below_the_picture(tmp_path: Path) -> None:
    many = scene(tmp_path / "root", *(([4.0, 5, 10, 8], 0.6 + 0.001 * n) for n in range(300)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.figures.images.runs._of", lambda _: "")
        (draw,) = gallery_of_one(many, 1).sections[1].pictures
    item = draw()
    assert item.caption.endswith(" boxes have no label, for lack of room.")
    assert "99 false" in item.caption
    few = panel(scene(tmp_path / "root", (OBJECT, 0.9)), 0, [])
    assert (few.note, few.unread) == ("", False)


def test_small_objects_make_the_picture_larger_except_in_a_report(tmp_path: Path) -> None:
    root = root_of(tmp_path / "root", boxes=[{"bbox": [30, 30, 6, 6]}], size=(640, 480))
    for path in root.glob("*/*.jpg"):
        Image.new("RGB", (640, 480)).save(path)
    one = scene(root)
    assert panel(one, 0, []).picture.width == 1280
    assert panel(one, 0, [], SMALL).picture.width == 400
    for path in root.glob("*/*.jpg"):
        path.unlink()
    assert panel(one, 0, []).unread
    assert pair((one, one), 0, ([], [])).unread
