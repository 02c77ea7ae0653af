"""Mended copies: each test damages a small root in one way, and knows what the copy must say."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from detector.data.coco.verify import Verification, verify_root
from detector.data.fix.draft import Choices
from detector.data.fix.fix import Fixes, fix_root
from detector.data.fix.pictures import look
from detector.errors import DataError, UsageError
from detector.storage.files import write_json
from detector.storage.shown import one_line
from harness.cli import app
from tests.command import invoke

WIDE, HIGH = 64, 48
BOXES = ([4.0, 6.0, 20.0, 10.0], [30.0, 20.0, 24.0, 16.0], [40.0, 8.0, 8.0, 30.0], [8.0, 30.0, 12.0, 12.0])
Change = Callable[[dict[str, Any]], object]


def picture(path: Path, *, orientation: int = 1, size: tuple[int, int] = (WIDE, HIGH)) -> None:
    """Four quarters of other colours, so that a turned image is known by its corners."""
    image = Image.new("RGB", size, "red")
    image.paste("green", (size[0] // 2, 0, *size))
    image.paste("blue", (0, size[1] // 2, size[0] // 2, size[1]))
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)


def content(*, images: int = 2) -> dict[str, Any]:
    return {
        "info": {"description": "drawn by the test"},
        "images": [{"id": i, "file_name": f"{i}.png", "width": WIDE, "height": HIGH} for i in range(1, images + 1)],
        "annotations": [
            {
                "id": 1 + k + len(BOXES) * i,
                "image_id": i + 1,
                "category_id": 1 + k % 2,
                "bbox": list(box),
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for i in range(images)
            for k, box in enumerate(BOXES)
        ],
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "jug"}],
    }


def build(root: Path, **splits: dict[str, Any]) -> Path:
    for split, rows in splits.items():
        (root / "annotations").mkdir(parents=True, exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(rows))
        for i in (1, 2):
            picture(root / split / f"{i}.png")
    return root


def damaged(tmp_path: Path, change: Change) -> Path:
    rows = content()
    change(rows)
    return build(tmp_path / "in", train=rows)


def mended(root: Path, choices: Choices | None = None) -> tuple[Fixes, dict[str, Any]]:
    """The copy's rows; the copy must verify."""
    out = root.parent / "out"
    fixes = fix_root(root, out, choices=choices)
    assert fixes.ok, fixes.unclear.lines()
    assert verify_root(out, decode=True).ok
    rows: dict[str, Any] = json.loads((out / "annotations/instances_train.json").read_text())
    assert json.loads((out / "fixes.json").read_text())["done"] == fixes.done.as_json()
    return fixes, rows


def boxes(rows: dict[str, Any]) -> list[list[float]]:
    return [row["bbox"] for row in rows["annotations"]]


def first(name: str, value: object, of: str = "annotations") -> Change:
    return lambda rows: rows[of][0].update({name: value})


def without(name: str, of: str = "annotations") -> Change:
    return lambda rows: rows[of][0].pop(name)


def twice(position: int, **changes: object) -> Change:
    return lambda rows: rows["annotations"].append({**rows["annotations"][position], **changes})


def test_a_good_root_is_copied_as_it_is(tmp_path: Path) -> None:
    fixes, rows = mended(build(tmp_path / "in", train=content()))
    assert not fixes.done
    assert rows == content()
    assert (tmp_path / "out/train/1.png").read_bytes() == (tmp_path / "in/train/1.png").read_bytes()


# What is damaged, and the kind under which it is told; the copy equals the undamaged root.
HARMLESS = {
    "box of text": (first("bbox", ["4.0", "6", "20.0", "1e1"]), "boxes whose numbers were text"),
    "false for iscrowd": (first("iscrowd", False), "iscrowd that was missing or no number"),
    "text for iscrowd": (first("iscrowd", "0"), "iscrowd that was missing or no number"),
    "null for iscrowd": (first("iscrowd", None), "iscrowd that was missing or no number"),
    "no iscrowd": (without("iscrowd"), "iscrowd that was missing or no number"),
    "no area": (without("area"), "areas that were missing or no pixel counts (the box's now)"),
    "area of text": (first("area", "200"), "areas that were written as text"),
    "area NaN": (first("area", math.nan), "values that are no JSON (null now)"),
    "area above the box": (first("area", 9999), "areas above the box's (the box's now)"),
    "size of text": (first("width", "64", "images"), "image sizes that were not the file's"),
    "no size": (without("height", "images"), "image sizes that were not the file's"),
    "swapped size": (first("width", HIGH, "images"), "image sizes that were not the file's"),
    "id of text": (first("id", "1"), "ids of annotations that were written as text or fractions"),
    "image id of text": (first("id", "1", "images"), "ids of images that were written as text or fractions"),
    "category id 1.0": (
        first("id", 1.5 - 0.5, "categories"),
        "category ids that were written as text or fractions",
    ),
    "path of elsewhere": (
        first("file_name", "C:\\data\\train\\1.png", "images"),
        "file names that were paths of elsewhere",
    ),
    "category twice": (
        lambda rows: rows["categories"].append({"id": 1, "name": "cup"}),
        "categories that were listed twice",
    ),
    "image twice": (lambda rows: rows["images"].append(rows["images"][0]), "images that were listed twice"),
    "annotation twice": (twice(0, id=99), "annotations that were there twice (dropped)"),
    "unknown image": (twice(0, id=99, image_id=7), "annotations of unknown images (dropped)"),
    "unknown category": (twice(0, id=99, category_id=7), "annotations of unknown categories (dropped)"),
    "no area left": (twice(0, id=99, bbox=[70, 5, 9, 9]), "boxes without area in their image (dropped)"),
    "box of three": (twice(0, id=99, bbox=[1, 2, 3]), "annotations without a box of four numbers (dropped)"),
    "infinite box": (twice(0, id=99, bbox=[1, 2, math.inf, 3]), "annotations without a box of four numbers (dropped)"),
    "negative sides": (first("bbox", [24.0, 16.0, -20.0, -10.0]), "boxes with negative sides (turned)"),
    "missing file": (
        lambda rows: rows["images"].append({"id": 9, "file_name": "9.png", "width": WIDE, "height": HIGH}),
        "images without a file in their folder (dropped)",
    ),
    "an image entry that is no object": (
        lambda rows: rows["images"].append("3.png"),
        "entries of images that are no objects (dropped)",
    ),
    "normalised boxes": (
        lambda rows: [
            row.update(bbox=[v / s for v, s in zip(row["bbox"], (WIDE, HIGH) * 2, strict=True)])
            for row in rows["annotations"]
        ],
        "splits whose boxes lay in 0..1 (pixels now)",
    ),
    "the same file under two ids": (
        lambda rows: rows["images"].append({**rows["images"][0], "id": 9}),
        "files under several ids whose annotations agree (one now)",
    ),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_damage_is_mended_and_told(tmp_path: Path, name: str) -> None:
    change, kind = HARMLESS[name]
    fixes, rows = mended(damaged(tmp_path, change))
    assert fixes.done.count(kind), fixes.done.lines()
    for row in rows["annotations"]:
        row["bbox"] = [pytest.approx(value) for value in row["bbox"]]
    assert content() == rows


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_other_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    root = build(tmp_path / "in", train=content())
    path = root / "annotations/instances_train.json"
    path.write_bytes(path.read_text().encode(encoding))
    assert mended(root)[1] == content()


@pytest.mark.parametrize(
    ("change", "ids"),
    [(first("id", 2), [2, 9, 3, 4, 5, 6, 7, 8]), (first("id", 0), [9, 2, 3, 4, 5, 6, 7, 8])],
    ids=["twice", "zero"],
)
def test_ids_that_cannot_stay_are_renumbered(tmp_path: Path, change: Change, ids: list[int]) -> None:
    rows = mended(damaged(tmp_path, change))[1]
    assert [row["id"] for row in rows["annotations"]] == ids


def test_images_may_count_from_0_but_not_below(tmp_path: Path) -> None:
    def lower(rows: dict[str, Any]) -> None:
        for row in rows["images"]:
            row["id"] = 0 if row["id"] == 1 else -7
        for row in rows["annotations"]:
            row["image_id"] = 0 if row["image_id"] == 1 else -7

    rows = mended(damaged(tmp_path, lower))[1]
    assert [row["id"] for row in rows["images"]] == [0, 1]
    assert [row["image_id"] for row in rows["annotations"]] == [0] * 4 + [1] * 4


def test_ids_of_text_are_numbers_in_the_copy(tmp_path: Path) -> None:
    def named(rows: dict[str, Any]) -> None:
        for row in rows["images"]:
            row["id"] = f"image-{row['id']}"
        for row in rows["annotations"]:
            row["image_id"] = f"image-{row['image_id']}"
            row["category_id"] = ["cup-id", "jug-id"][row["category_id"] - 1]
        for row in rows["categories"]:
            row["id"] = f"{row['name']}-id"

    assert mended(damaged(tmp_path, named))[1] == content()


def test_boxes_are_clipped_to_their_image(tmp_path: Path) -> None:
    rows = mended(damaged(tmp_path, first("bbox", [-4.0, 40.0, 20.0, 30.0])))[1]
    assert boxes(rows)[0] == [0, 40, 16, 8]
    assert rows["annotations"][0]["area"] == 128


def test_a_missing_box_comes_from_its_outline(tmp_path: Path) -> None:
    def outlined(rows: dict[str, Any]) -> None:
        del rows["annotations"][0]["bbox"]
        rows["annotations"][0]["segmentation"] = [[4, 6, 24, 6, 24, 16]]

    assert boxes(mended(damaged(tmp_path, outlined))[1])[0] == BOXES[0]


def corners(rows: dict[str, Any]) -> None:
    for row in rows["annotations"]:
        x, y, w, h = row["bbox"]
        row["bbox"] = [x, y, x + w, y + h]


def test_corner_boxes_are_told_and_read_on_request(tmp_path: Path) -> None:
    root = damaged(tmp_path, corners)
    fixes = fix_root(root, tmp_path / "out")
    assert fixes.unclear.count("splits whose boxes look like corners (say --boxes xyxy or xywh)") == 1
    assert not (tmp_path / "out").exists()
    assert mended(root, Choices(boxes="xyxy"))[1] == content()


def test_one_box_that_overhangs_is_no_sign_of_corners(tmp_path: Path) -> None:
    assert boxes(mended(damaged(tmp_path, first("bbox", [40.0, 30.0, 60.0, 40.0])))[1])[0] == [40, 30, 24, 18]


def test_boxes_that_could_be_corners_and_fit_as_they_are_stay(tmp_path: Path) -> None:
    def wide(rows: dict[str, Any]) -> None:
        for row in rows["annotations"]:
            row["bbox"] = [4, 6, 20 + row["id"], 10]
        rows["annotations"][0]["bbox"] = [30, 6, 40, 10]

    assert boxes(mended(damaged(tmp_path, wide))[1])[:2] == [[30, 6, 34, 10], [4, 6, 22, 10]]


def test_normalised_centres_are_told_and_read_on_request(tmp_path: Path) -> None:
    def centred(rows: dict[str, Any]) -> None:
        for row in rows["annotations"]:
            x, y, w, h = row["bbox"]
            row["bbox"] = [(x + w / 2) / WIDE, (y + h / 2) / HIGH, w / WIDE, h / HIGH]
        rows["annotations"][0]["bbox"][2] = 0.99

    root = damaged(tmp_path, centred)
    assert not fix_root(root, tmp_path / "out").ok
    rows = mended(root, Choices(boxes="cxcywh"))[1]
    assert boxes(rows)[1] == pytest.approx(BOXES[1])


def two_splits(tmp_path: Path) -> Path:
    other = content()
    other["categories"] = [{"id": 1, "name": "jug"}, {"id": 2, "name": "cup"}]
    return build(tmp_path / "in", train=content(), val=other)


@pytest.mark.parametrize(("choice", "expected"), [("names", [2, 1, 2, 1]), ("ids", [1, 2, 1, 2])])
def test_categories_that_differ_between_splits_are_told_and_decided_on_request(
    tmp_path: Path, choice: Any, expected: list[int]
) -> None:
    root = two_splits(tmp_path)
    fixes = fix_root(root, tmp_path / "out")
    assert fixes.unclear.count("category ids whose names differ between splits (say --categories names|ids)") == 2
    mended(root, Choices(categories=choice))
    rows = json.loads((tmp_path / "out/annotations/instances_val.json").read_text())
    assert rows["categories"] == content()["categories"]
    assert [row["category_id"] for row in rows["annotations"]][:4] == expected


def test_a_split_that_lists_fewer_categories_gets_the_others(tmp_path: Path) -> None:
    other = content()
    other["categories"] = [{"id": 1, "name": "cup"}]
    other["annotations"] = [row for row in other["annotations"] if row["category_id"] == 1]
    mended(build(tmp_path / "in", train=content(), val=other))
    rows = json.loads((tmp_path / "out/annotations/instances_val.json").read_text())
    assert rows["categories"] == content()["categories"]


def same_file(rows: dict[str, Any]) -> None:
    rows["images"].append({**rows["images"][0], "id": 9})
    rows["annotations"].append({**rows["annotations"][0], "id": 99, "image_id": 9, "bbox": [1, 1, 5, 5]})


def test_a_file_under_two_ids_is_told_where_the_annotations_differ(tmp_path: Path) -> None:
    root = damaged(tmp_path, same_file)
    fixes = fix_root(root, tmp_path / "out")
    assert "files under several ids" in " ".join(fixes.unclear.items)
    assert len(mended(root, Choices(merge_images=True))[1]["annotations"]) == 9


def test_a_file_under_two_ids_is_left_out_on_request(tmp_path: Path) -> None:
    rows = mended(damaged(tmp_path, same_file), Choices(drop_unclear=True))[1]
    assert [row["file_name"] for row in rows["images"]] == ["2.png"]
    assert {row["image_id"] for row in rows["annotations"]} == {2}


def test_an_id_of_two_files_is_told_and_left_out_on_request(tmp_path: Path) -> None:
    root = damaged(tmp_path, first("id", 2, "images"))
    assert "image ids of several files" in " ".join(fix_root(root, tmp_path / "out").unclear.items)
    write_json(root / "annotations/instances_train.json", content() | {"images": [*content()["images"], {
        "id": 1, "file_name": "2.png", "width": WIDE, "height": HIGH}]})  # fmt: skip
    rows = mended(root, Choices(drop_unclear=True))[1]
    assert [row["file_name"] for row in rows["images"]] == ["2.png"]


def turned(tmp_path: Path, orientation: int, *, upright: bool) -> Path:
    """A root of one image that is stored WIDE x HIGH; the size of its entry says on what it was drawn."""
    rows = content(images=1)
    size = (HIGH, WIDE) if upright and orientation > 4 else (WIDE, HIGH)
    rows["images"][0].update(file_name="1.jpg", width=size[0], height=size[1])
    rows["annotations"] = rows["annotations"][:1]
    if upright:
        rows["annotations"][0]["bbox"] = [4, 6, 12, 18]
    root = build(tmp_path / "in", train=rows)
    picture(root / "train/1.jpg", orientation=orientation)
    return root


# Where the box (4, 6, 20, 10) of the stored 64 x 48 pixels lies when they are shown: by hand.
UPRIGHT = {
    2: [40, 6, 20, 10],
    3: [40, 32, 20, 10],
    4: [4, 32, 20, 10],
    5: [6, 4, 10, 20],
    6: [32, 4, 10, 20],
    7: [32, 40, 10, 20],
    8: [6, 40, 10, 20],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_boxes_of_stored_pixels_turn_with_their_image(tmp_path: Path, orientation: int) -> None:
    root = turned(tmp_path, orientation, upright=False)
    rows = mended(root, Choices(exif="stored") if orientation < 5 else None)[1]
    assert boxes(rows) == [UPRIGHT[orientation]]
    with Image.open(tmp_path / "out/train/1.jpg") as image, Image.open(root / "train/1.jpg") as stored:
        assert image.getexif().get(0x0112) is None
        assert image.size == ((HIGH, WIDE) if orientation > 4 else (WIDE, HIGH))
        x, y, w, h = UPRIGHT[orientation]
        own, before = image.getpixel((x + w // 2, y + h // 2)), stored.getpixel((14, 11))
    assert isinstance(own, tuple)
    assert isinstance(before, tuple)
    assert max(abs(a - b) for a, b in zip(own, before, strict=True)) < 8


@pytest.mark.parametrize("orientation", [3, 6])
def test_boxes_of_the_upright_picture_stay(tmp_path: Path, orientation: int) -> None:
    assert boxes(mended(turned(tmp_path, orientation, upright=True))[1]) == [[4, 6, 12, 18]]


def test_boxes_that_fit_the_upright_picture_alone_were_drawn_on_it(tmp_path: Path) -> None:
    root = turned(tmp_path, 6, upright=False)
    rows = json.loads((root / "annotations/instances_train.json").read_text())
    rows["annotations"][0]["bbox"] = [4, 40, 20, 20]
    (root / "annotations/instances_train.json").write_text(json.dumps(rows))
    assert boxes(mended(root)[1]) == [[4, 40, 20, 20]]


def test_a_png_is_turned_without_loss(tmp_path: Path) -> None:
    root = build(tmp_path / "in", train=content())
    picture(root / "train/1.png", orientation=3)
    mended(root, Choices(exif="stored"))
    with Image.open(root / "train/1.png") as stored, Image.open(tmp_path / "out/train/1.png") as image:
        assert image.tobytes() == stored.transpose(Image.Transpose.ROTATE_180).tobytes()


def test_images_that_cannot_be_read_are_dropped_with_their_annotations(tmp_path: Path) -> None:
    root = build(tmp_path / "in", train=content())
    (root / "train/1.png").write_bytes((root / "train/1.png").read_bytes()[:60])
    fixes, rows = mended(root)
    assert fixes.done.count("images that cannot be read (dropped)") == 1
    assert fixes.done.count("annotations of dropped images (dropped)") == len(BOXES)
    assert [row["id"] for row in rows["images"]] == [2]


def test_a_named_pipe_and_a_link_that_leaves_are_no_images(tmp_path: Path) -> None:
    root = build(tmp_path / "in", train=content(images=2))
    picture(tmp_path / "secret.png")
    (root / "train/1.png").unlink()
    (root / "train/1.png").symlink_to(tmp_path / "secret.png")
    rows = content()
    rows["images"].append({"id": 3, "file_name": "3.png", "width": 5, "height": 5})
    os.mkfifo(root / "train/3.png")
    (root / "annotations/instances_train.json").write_text(json.dumps(rows))
    assert [row["id"] for row in mended(root)[1]["images"]] == [2]
    assert not (tmp_path / "out/train/1.png").exists()


@pytest.mark.parametrize("text", ["", "[]", '{"images": 3}', "{", '{"images": [], "annotations": {}}', "[" * 100_000])
def test_what_is_no_coco_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    root = build(tmp_path / "in", train=content())
    (root / "annotations/instances_train.json").write_text(text)
    with pytest.raises(DataError, match=r"instances_train\.json cannot be mended"):
        fix_root(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_the_check_still_finds_is_told_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strict(root: Path, splits: list[str], *, decode: bool) -> Verification:
        odd: Any = f"annotations: {splits} are odd"
        return Verification(root, (), (odd,), ())

    monkeypatch.setattr("detector.data.fix.fix.verify_root", strict)
    fixes = fix_root(build(tmp_path / "in", train=content()), tmp_path / "out")
    assert fixes.unclear.items == {"problems that remain": ["annotations: ['train'] are odd"]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_only_the_usual_formats_are_opened_whatever_a_file_is_called(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "a.jpg", format="ICO")
    assert str(look(tmp_path / "a.jpg")).startswith("not an image (JPEG, PNG, ")


def test_the_source_stays_and_an_existing_folder_is_not_touched(tmp_path: Path) -> None:
    root = damaged(tmp_path, first("iscrowd", False))
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    mended(root)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    with pytest.raises(UsageError, match="exists"):
        fix_root(root, tmp_path / "out")


def test_hard_links_take_no_space(tmp_path: Path) -> None:
    root = build(tmp_path / "in", train=content())
    mended(root, Choices(link=True))
    assert (tmp_path / "out/train/1.png").samefile(root / "train/1.png")


def test_the_command_tells_what_it_did_and_that_it_could_not(tmp_path: Path) -> None:
    root = damaged(tmp_path, first("iscrowd", False))
    said = invoke("data", "fix", str(root), str(tmp_path / "out")).output
    assert "mended: iscrowd that was missing or no number: 1 (annotation 1 of train: False)" in said
    assert "train: 2 images, 8 boxes" in said
    corner = damaged(tmp_path / "other", corners)
    result = CliRunner().invoke(app, ["data", "fix", str(corner), str(tmp_path / "third")])
    assert result.exit_code == 1
    assert "not mended: splits whose boxes look like corners" in result.output


def test_text_from_files_cannot_act_on_a_terminal() -> None:
    assert one_line("a\x1b[2J\nb\u202ec\ud800") == "a\\x1b[2J\\nb\\u202ec\\ud800"
