"""Annotation files as labelling tools write them: harmless forms are read, and told; all else is counted by kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detector.data.coco import annotations
from detector.data.coco.index import CocoIndex, load_index, look_at_split, read_split
from detector.data.coco.problems import LISTED, report_lines, summary, total
from detector.data.coco.subset import cut_annotations
from detector.errors import DataError

Content = dict[str, Any]
Change = Callable[[Content], None]


def content() -> Content:
    return {
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": 40, "height": 30},
            {"id": 2, "file_name": "b.jpg", "width": 40, "height": 30},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 5, 10, 8], "area": 80, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 2, "bbox": [20, 5, 10, 8], "area": 70.5, "iscrowd": 1},
            {"id": 3, "image_id": 2, "category_id": 2, "bbox": [4, 15, 10, 8], "area": 80, "iscrowd": 0},
        ],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }


def write(root: Path, value: Content | bytes) -> Path:
    (root / "annotations").mkdir(exist_ok=True)
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    (root / "annotations" / "instances_val.json").write_bytes(data)
    return root


def columns(index: CocoIndex) -> dict[str, Any]:
    names = ("image_ids", "widths", "heights", "labels", "boxes", "areas", "crowd", "offsets", "category_ids")
    return {name: getattr(index, name).tolist() for name in names} | {"names": index.category_names}


def each(path: str, key: str, new: Callable[[Any], Any]) -> Change:
    def apply(value: Content) -> None:
        for entry in value[path]:
            entry[key] = new(entry.get(key))

    return apply


def both(*changes: Change) -> Change:
    return lambda value: [change(value) for change in changes] and None


def drop(path: str, key: str) -> Change:
    return lambda value: [entry.pop(key) for entry in value[path]] and None


def as_text_ids(value: Content) -> None:
    for entry in value["images"]:
        entry["id"] = f"frame-{entry['id']}"
    for entry in value["annotations"]:
        entry["image_id"] = f"frame-{entry['image_id']}"
        entry["category_id"] = "ab"[entry["category_id"] - 1]
        entry["id"] = f"{entry['id']:08x}-uuid"
    for entry in value["categories"]:
        entry["id"] = entry["name"]


HARMLESS: dict[str, tuple[Change, str]] = {
    "numbers as text": (
        each("annotations", "bbox", lambda box: [f"{v}.0000" for v in box]),
        "12 values of bbox written",
    ),
    "some numbers as text": (
        each("annotations", "bbox", lambda box: [*box[:2], str(box[2]), f" {box[3]} "]),
        "6 values",
    ),
    "areas as text": (each("annotations", "area", str), "3 values of area written as text"),
    "sizes as decimals": (each("images", "width", float), "2 values of width written as decimals"),
    "sizes as text": (each("images", "height", str), "2 values of height written as text"),
    "ids as decimals": (
        both(each("images", "id", float), each("annotations", "image_id", float)),
        "3 values of image_id written as decimals",
    ),
    "category ids as text": (
        both(each("categories", "id", str), each("annotations", "category_id", str)),
        "3 values of category_id written as text",
    ),
    "iscrowd as booleans": (each("annotations", "iscrowd", bool), "3 values of iscrowd that are not written as 0 or 1"),
    "iscrowd as text": (each("annotations", "iscrowd", str), "3 values of iscrowd"),
    "annotation ids from 0": (each("annotations", "id", lambda key: key - 1), ""),
    "no annotation ids": (drop("annotations", "id"), "3 annotations without a number as id"),
    "annotation ids null": (each("annotations", "id", lambda _: None), "3 annotations without a number as id"),
    "text ids": (as_text_ids, "2 image ids that are text, numbered in the file's order, such as 'frame-1' is 1"),
    "categories twice": (
        lambda value: value["categories"].extend(list(value["categories"])),
        "2 identical categories listed again",
    ),
    "NaN elsewhere": (each("annotations", "score", lambda _: float("nan")), ""),
    "huge numbers elsewhere": (each("annotations", "hash", lambda _: 10**40), ""),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_form_is_read_as_the_plain_one_and_told(tmp_path: Path, name: str) -> None:
    change, note = HARMLESS[name]
    plain = columns(load_index(write(tmp_path, content()), "val"))
    value = content()
    change(value)
    found = look_at_split(write(tmp_path, value), "val")
    assert found.problems == []
    assert columns(load_index(tmp_path, "val")) == plain
    notes = [
        f"{one.count:,} {one.kind}" + (f", such as {one.examples[0][1]}" if one.examples else "") for one in found.notes
    ]
    assert bool(notes) == bool(note)
    assert any(note in one for one in notes) or not note


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_other_encodings_are_read_by_index_and_subset_alike(tmp_path: Path, encoding: str) -> None:
    plain = columns(load_index(write(tmp_path, content()), "val"))
    data = json.dumps(content()).encode(encoding)
    found = look_at_split(write(tmp_path, data), "val")
    assert found.index is not None
    assert (columns(found.index), found.problems) == (plain, [])
    assert [one.kind for one in found.notes] == ["files in another encoding than plain UTF-8"]
    cut = json.loads(cut_annotations(data, {2}))
    assert [len(cut[name]) for name in ("images", "annotations", "categories")] == [1, 1, 2]


@pytest.mark.parametrize("name", HARMLESS)
def test_subset_of_a_harmless_form_keeps_its_entries(name: str) -> None:
    value = content()
    HARMLESS[name][0](value)
    cut = json.loads(cut_annotations(json.dumps(value).encode(), {2}))
    assert repr(cut["images"]) == repr(value["images"][1:])
    assert repr(cut["annotations"]) == repr(value["annotations"][2:])
    assert cut["categories"] == value["categories"]


def test_missing_iscrowd_and_area_are_an_object_and_its_boxs_area(tmp_path: Path) -> None:
    value = content()
    both(each("annotations", "iscrowd", lambda _: None), each("annotations", "area", lambda _: None))(value)
    index = load_index(write(tmp_path, value), "val")
    assert index.crowd.tolist() == [False] * 3
    assert index.areas.tolist() == [80.0] * 3


HARMFUL: dict[str, tuple[Change, int, str]] = {
    "sizes null": (each("images", "width", lambda _: None), 2, "images whose size is not known"),
    "sizes empty": (each("images", "height", lambda _: ""), 2, "images whose size is not known"),
    "sizes halved": (each("images", "height", lambda side: side + 0.5), 2, "images whose size is not known"),
    "names as numbers": (each("images", "file_name", lambda _: 7), 2, "images without a file name"),
    "boxes as words": (each("annotations", "bbox", lambda _: ["x"] * 4), 3, "boxes that are not four numbers"),
    "boxes empty": (each("annotations", "bbox", lambda _: []), 3, "boxes that are not four numbers"),
    "boxes of booleans": (each("annotations", "bbox", lambda _: [True] * 4), 3, "boxes that are not four numbers"),
    "boxes gone": (drop("annotations", "bbox"), 3, "boxes that are not four numbers"),
    "NaN as text": (each("annotations", "bbox", lambda _: ["nan"] * 4), 3, "boxes that are not four numbers"),
    "iscrowd 2": (each("annotations", "iscrowd", lambda _: 2), 3, "values of iscrowd that are neither 0 nor 1"),
    "areas as words": (each("annotations", "area", lambda _: "big"), 3, "areas that are no numbers"),
    "category names gone": (drop("categories", "name"), 2, "categories without a name"),
    "image ids gone": (drop("annotations", "image_id"), 3, "annotations without a known image"),
    "fractions": (
        each("annotations", "bbox", lambda box: [side / 40 for side in box]),
        3,
        "boxes in 0..1, fractions of their image instead of pixels",
    ),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_every_harmful_entry_is_counted_in_one_message(tmp_path: Path, name: str) -> None:
    change, count, kind = HARMFUL[name]
    value = content()
    change(value)
    _, problems = read_split(write(tmp_path, value), "val")
    assert {problem.kind for problem in problems} == {kind}
    assert total(problems) == count
    with pytest.raises(DataError, match=f"and {count - 1} more {kind}.*harness data verify"):
        load_index(tmp_path, "val")


def test_ten_thousand_problems_are_listed_in_part_and_counted_in_full(tmp_path: Path) -> None:
    value = content()
    value["annotations"] = [{**value["annotations"][0], "id": i, "bbox": [0, 0, -1, i]} for i in range(10_000)]
    value["annotations"][5]["category_id"] = 9
    _, problems = read_split(write(tmp_path, value), "val")
    assert total(problems) == 10_001
    assert len(problems) == LISTED + 2
    assert problems[-1].message == "9,000 more boxes of a negative size"
    lines = report_lines(problems)
    assert len(lines) == 5
    assert lines[0].endswith("annotation 5 of image 1: unknown category id 9")
    assert lines[-1] == "annotations/instances_val.json: and 9,997 more boxes of a negative size"
    assert "(and 9,999 more boxes of a negative size)" in summary(problems)


def test_boxes_that_reach_out_are_a_note_and_corners_are_told(tmp_path: Path) -> None:
    value = content()
    value["annotations"][0]["bbox"] = [30, 5, 12, 8]
    found = look_at_split(write(tmp_path, value), "val")
    assert found.problems == []
    assert [(one.count, one.kind.split(",")[0]) for one in found.notes] == [(1, "boxes that reach out of their image")]
    value["annotations"] = [{**row, "bbox": [8, 9, 35, 28], "area": 500} for row in value["annotations"]]
    found = look_at_split(write(tmp_path, value), "val")
    assert [one.count for one in found.notes] == [3, 3]
    assert found.notes[0].kind.startswith("boxes that look like corners (x1, y1, x2, y2)")


def test_an_area_above_its_box_is_a_note_and_kept(tmp_path: Path) -> None:
    value = content()
    value["annotations"][0]["area"] = 81  # of a box of 80: COCO counts pixels
    value["annotations"][2]["area"] = 1200
    found = look_at_split(write(tmp_path, value), "val")
    assert found.index is not None
    assert found.index.areas.tolist() == [81, 70.5, 1200]
    [note] = found.notes
    assert (note.count, note.examples[0]) == (
        1,
        (3, "annotation 3 of image 2: bbox (4.0, 15.0, 10.0, 8.0): area 1200, not 80"),
    )


def test_text_category_ids_are_numbered_alike_in_two_splits(tmp_path: Path) -> None:
    value = content()
    as_text_ids(value)
    value["categories"].reverse()
    index = load_index(write(tmp_path, value), "val")
    assert index.category_names == ("a", "b")
    assert index.labels.tolist() == [0, 1, 1]


def test_a_plain_file_is_never_read_entry_by_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotations, "parse", lambda _: pytest.fail("the slow way"))
    assert load_index(write(tmp_path, content()), "val").num_images == 2
