"""The index of a COCO split: hand-made files for every rule and error, and real images against pycocotools."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.data.coco import index as coco
from detector.data.coco import releases
from detector.data.coco.files import annotations_sha256, known_splits
from detector.data.coco.index import CocoIndex, load_index, read_split, select, summary, trainable
from detector.data.coco.verify import check_release
from detector.errors import DataError

Content = dict[str, Any]


def content() -> Content:
    """Three images out of order, ids with gaps; image 2 has nothing, image 9 only a crowd, image 5 two objects."""
    return {
        "info": {"year": 2017},
        "licenses": [],
        "images": [
            {"id": 9, "file_name": "c.jpg", "width": 40, "height": 30, "license": 1},
            {"id": 2, "file_name": "a.jpg", "width": 10, "height": 10},
            {"id": 5, "file_name": "b.jpg", "width": 20, "height": 16},
        ],
        "annotations": [
            {"id": 70, "image_id": 9, "category_id": 3, "bbox": [0, 0, 40, 30], "iscrowd": 1, "area": 600.5},
            {"id": 30, "image_id": 5, "category_id": 90, "bbox": [1.5, 2.25, 4, 8], "iscrowd": 0, "area": 20.25},
            {"id": 20, "image_id": 5, "category_id": 3, "bbox": [0, 0, 20.75, 16], "segmentation": []},
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 3, "name": "car", "supercategory": "vehicle"}],
    }


def write(root: Path, value: Content | str | bytes) -> Path:
    folder = root / "annotations"
    folder.mkdir(exist_ok=True)
    text = json.dumps(value) if isinstance(value, dict) else value
    (folder / "instances_val2017.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def load(root: Path, value: Content | None = None) -> CocoIndex:
    return load_index(write(root, content() if value is None else value), "val2017")


def test_load_index_sorts_images_and_groups_their_boxes(tmp_path: Path) -> None:
    index = load(tmp_path)
    assert index.image_ids.tolist() == [2, 5, 9]
    assert index.file_names == ["a.jpg", "b.jpg", "c.jpg"]
    assert index.widths.tolist() == [10, 20, 40]
    assert index.heights.tolist() == [10, 16, 30]
    assert index.offsets.tolist() == [0, 0, 2, 3]
    assert index.annotation_ids.tolist() == [30, 20, 70]  # within an image: the file's order
    assert index.boxes.tolist() == [[1.5, 2.25, 5.5, 10.25], [0, 0, 20.75, 16], [0, 0, 40, 30]]
    assert index.crowd.tolist() == [False, False, True]
    assert index.positions().tolist() == [1, 1, 2]
    assert index.annotations_of(1) == slice(0, 2)
    assert index.image_path(2) == tmp_path / "val2017" / "c.jpg"


def test_load_index_numbers_labels_by_sorted_category_id(tmp_path: Path) -> None:
    index = load(tmp_path)
    assert index.category_ids.tolist() == [3, 90]
    assert index.category_names == ("car", "toothbrush")
    assert index.labels.tolist() == [1, 0, 0]


def test_load_index_reads_absent_iscrowd_as_object_and_absent_area_as_box_area(tmp_path: Path) -> None:
    index = load(tmp_path)
    row = index.annotation_ids.tolist().index(20)
    assert not index.crowd[row]
    assert index.areas.tolist() == [20.25, 20.75 * 16, 600.5]


def test_load_index_has_the_declared_types(tmp_path: Path) -> None:
    index = load(tmp_path)
    kinds = {name: str(getattr(index, name).dtype) for name in ("image_ids", "widths", "offsets", "boxes", "crowd")}
    assert kinds == {
        "image_ids": "int64", "widths": "int32", "offsets": "int64", "boxes": "float64", "crowd": "bool"
    }  # fmt: skip


def test_load_index_accepts_split_without_annotations(tmp_path: Path) -> None:
    index = load(tmp_path, {**content(), "annotations": []})
    assert index.offsets.tolist() == [0, 0, 0, 0]
    assert index.boxes.shape == (0, 4)
    assert trainable(index).tolist() == []


def test_load_index_keeps_boxes_without_area_and_subpixel_overhang(tmp_path: Path) -> None:
    value = content()
    value["annotations"][0]["bbox"] = [5, 5, 0, 3]
    value["annotations"][1]["bbox"] = [-1, -0.5, 22, 16.5]  # one pixel over on the left and on the right
    assert len(load(tmp_path, value).boxes) == 3


def change(path: str, key: str, new: Any) -> Callable[[Content], None]:
    """Set ``key`` of entry 0 of the list ``path``."""

    def apply(value: Content) -> None:
        value[path][0][key] = new

    return apply


def repeat(path: str, **changes: Any) -> Callable[[Content], None]:
    def apply(value: Content) -> None:
        value[path].append({**copy.deepcopy(value[path][0]), **changes})

    return apply


ERRORS: list[tuple[str, Callable[[Content], None], int, str]] = [
    ("repeated image", repeat("images"), 9, "image id 9 is given twice"),
    ("renamed category", repeat("categories", name="car"), 90, "category id 90 is given twice: 'car', 'toothbrush'"),
    ("one file under two ids", repeat("images", id=10), 10, "the file 'c.jpg' is image 9 and image 10"),
    ("repeated annotation", repeat("annotations"), 70, "annotation id 70 is given twice"),
    ("unknown image", change("annotations", "image_id", 4), 70, "annotation 70: unknown image id 4"),
    ("unknown category", change("annotations", "category_id", 4), 70, "unknown category id 4"),
    ("NaN", change("annotations", "bbox", [0, 0, float("nan"), 3]), 70, "(0.0, 0.0, nan, 3.0) is not finite"),
    ("infinity", change("annotations", "bbox", [float("-inf"), 0, float("inf"), 3]), 70, "is not finite"),
    ("negative width", change("annotations", "bbox", [4, 4, -1, 3]), 70, "has a negative size"),
    ("beyond any image", change("annotations", "bbox", [0, 0, 1e300, 3]), 70, "is not finite, or beyond any image"),
    ("right of the image", change("annotations", "bbox", [41.1, 0, 5, 3]), 70, "outside its image of 40 x 30"),
    ("below the image", change("annotations", "bbox", [0, 31.1, 5, 5]), 70, "outside its image of 40 x 30"),
    ("left of the image", change("annotations", "bbox", [-6.1, 0, 5, 5]), 70, "outside its image of 40 x 30"),
    ("negative area", change("annotations", "area", -1), 70, "area -1.0 is no pixel count"),
    ("NaN area", change("annotations", "area", float("nan")), 70, "area nan is no pixel count"),
    ("zero width image", change("images", "width", 0), 9, "image 9 has the impossible size 0 x 30"),
    ("huge image", change("images", "height", 2**31), 9, "impossible size 40 x 2147483648"),
    ("path out of the root", change("images", "file_name", "../c.jpg"), 9, "unusable file name '../c.jpg'"),
    ("absolute path", change("images", "file_name", "/c.jpg"), 9, "unusable file name '/c.jpg'"),
    ("a name with NUL", change("images", "file_name", "c\0.jpg"), 9, "unusable file name 'c\\x00.jpg'"),
    ("half a character", change("images", "file_name", "\ud83d.jpg"), 9, "unusable file name"),
    ("a name too long", change("images", "file_name", "c" * 256), 9, "unusable file name"),
    ("no name", change("images", "file_name", ""), 9, "unusable file name ''"),
]


@pytest.mark.parametrize(("spoil", "key", "message"), [row[1:] for row in ERRORS], ids=[row[0] for row in ERRORS])
def test_load_index_names_file_and_id_of_a_wrong_entry(
    tmp_path: Path, spoil: Callable[[Content], None], key: int, message: str
) -> None:
    value = content()
    spoil(value)
    _, problems = read_split(write(tmp_path, value), "val2017")
    found = [problem for problem in problems if problem.id == key and message in problem.message]
    assert [problem.file for problem in found] == ["annotations/instances_val2017.json"]
    with pytest.raises(DataError, match="instances_val2017") as raised:
        load_index(tmp_path, "val2017")
    assert message in str(raised.value)
    assert f"harness data verify {tmp_path}" in str(raised.value)


def test_load_index_shows_first_problems_and_counts_the_rest(tmp_path: Path) -> None:
    value = content()
    for k in range(5):
        repeat("annotations", id=100 + k, category_id=1000 + k)(value)
    value["annotations"][1]["bbox"] = [0, 0, -1, 3]
    counted = r"unknown category id 1000 \(and 4 more annotations of an unknown category\); .* has a negative size"
    with pytest.raises(DataError, match=counted) as raised:
        load(tmp_path, value)
    assert "1001" not in str(raised.value)


def test_read_split_indexes_what_refers_to_something(tmp_path: Path) -> None:
    value = content()
    value["annotations"][1]["image_id"] = 1
    value["annotations"][2]["category_id"] = 4
    index, problems = read_split(write(tmp_path, value), "val2017")
    assert index is not None
    assert index.annotation_ids.tolist() == [70]
    assert {problem.id for problem in problems} == {30, 20}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a readable COCO instances file"),
        ("[]", "Expected `object`, got `array`"),
        ('{"images": [], "annotations": []}', "missing required field `categories`"),
        ("[" * 100_000, "nested too deep"),
        ("", "file: it is empty"),
        (b'{\n"x": "\xe9"}', "line 2: byte 0xe9 is not UTF-8"),
        ('{"images": [], "categories": [], "annotations": [{"id": "7"}]}', r"annotation 7 of image \(missing\): bbox"),
        ('{"images": [{"id": 99999999999999999999}], "categories": [], "annotations": []}', "id 9{20} is no whole"),
        (
            '{"images": [null, 3], "categories": [], "annotations": []}',
            r"images\[0\] is None, not an object \(and 1 more",
        ),
    ],
)
def test_load_index_rejects_text_that_is_no_instances_file(tmp_path: Path, text: str | bytes, message: str) -> None:
    write(tmp_path, text)
    with pytest.raises(DataError, match=message):
        load_index(tmp_path, "val2017")


def test_load_index_names_existing_splits_for_a_missing_one(tmp_path: Path) -> None:
    write(tmp_path, content())
    assert known_splits(tmp_path) == ["val2017"]
    with pytest.raises(DataError, match=r"no such split 'train2017'; the root has val2017.*harness data verify"):
        load_index(tmp_path, "train2017")
    with pytest.raises(DataError, match="root folder does not exist; set HARNESS_DATA"):
        load_index(tmp_path / "nowhere", "train2017")


def test_trainable_leaves_out_crowds_and_boxes_up_to_one_pixel(tmp_path: Path) -> None:
    value = content()
    value["annotations"] = [
        {"id": 1, "image_id": 2, "category_id": 3, "bbox": [1.03, 0.7, 1, 5]},  # 1.03 + 1 - 1.03 is more than 1
        {"id": 2, "image_id": 5, "category_id": 3, "bbox": [0, 0, 1.01, 1.01]},
        {"id": 3, "image_id": 5, "category_id": 3, "bbox": [0, 0, 0, 0]},
        {"id": 4, "image_id": 9, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1},
    ]
    assert trainable(load(tmp_path, value)).tolist() == [1]
    assert trainable(load(tmp_path, value), crowd_only=True).tolist() == [1, 2]


def test_select_keeps_the_images_boxes_and_all_categories(tmp_path: Path) -> None:
    index = load(tmp_path)
    part = select(index, np.array([0, 2]))
    assert part.image_ids.tolist() == [2, 9]
    assert part.offsets.tolist() == [0, 0, 1]
    assert part.annotation_ids.tolist() == [70]
    assert part.category_ids.tolist() == [3, 90]
    assert part.image_path(1) == index.image_path(2)
    assert select(index, np.array([], dtype=np.int64)).offsets.tolist() == [0]


@pytest.mark.parametrize("positions", [[2, 0], [1, 1]])
def test_select_rejects_positions_out_of_order(tmp_path: Path, positions: list[int]) -> None:
    index = load(tmp_path)
    with pytest.raises(ValueError, match="strictly ascending"):
        select(index, np.array(positions))


def test_annotations_sha256_is_that_of_the_file(tmp_path: Path) -> None:
    write(tmp_path, "abc")
    assert annotations_sha256(tmp_path, "val2017") == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(DataError, match="no such split 'train2017'"):
        annotations_sha256(tmp_path, "train2017")


def test_check_release_compares_all_three_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = load(tmp_path)
    monkeypatch.setattr("detector.data.coco.verify.NUM_COCO_CATEGORIES", 2)
    monkeypatch.setitem(releases.RELEASES["2017"], "val2017", (3, 3))
    check_release(index, "2017")
    for images, boxes, categories in ((4, 3, 2), (3, 4, 2), (3, 3, 80)):
        monkeypatch.setattr("detector.data.coco.verify.NUM_COCO_CATEGORIES", categories)
        monkeypatch.setitem(releases.RELEASES["2017"], "val2017", (images, boxes))
        with pytest.raises(DataError, match=f"not {images} images, {boxes} boxes, {categories} categories"):
            check_release(index, "2017")


def test_check_release_lists_known_releases_for_an_unknown_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Unknown COCO release '2014'.*train2017 of 2017, val2017 of 2017"):
        check_release(load(tmp_path), "2014")


def test_summary_of_few_problems_counts_none(tmp_path: Path) -> None:
    problems = [coco.Problem("f.json", k, f"wrong {k}") for k in range(3)]
    assert summary(problems) == "f.json: wrong 0; f.json: wrong 1; f.json: wrong 2"


@pytest.mark.coco
@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_load_index_agrees_with_pycocotools_on_real_annotations(coco_tiny: Path, split: str) -> None:
    from pycocotools.coco import COCO

    index = load_index(coco_tiny, split)
    with contextlib.redirect_stdout(io.StringIO()):
        peer = COCO(str(coco_tiny / "annotations" / f"instances_{split}.json"))
    assert len(index.boxes) == len(peer.anns) > 0
    assert index.image_ids.tolist() == sorted(peer.getImgIds())
    assert index.category_ids.tolist() == sorted(peer.getCatIds())
    assert list(index.category_names) == [row["name"] for row in peer.loadCats(sorted(peer.getCatIds()))]
    for i, image_id in enumerate(index.image_ids.tolist()):
        rows = peer.loadAnns(peer.getAnnIds(imgIds=[image_id], iscrowd=None))
        part = index.annotations_of(i)
        assert index.annotation_ids[part].tolist() == [row["id"] for row in rows]
        assert index.category_ids[index.labels[part]].tolist() == [row["category_id"] for row in rows]
        assert index.crowd[part].tolist() == [bool(row["iscrowd"]) for row in rows]
        assert index.areas[part].tolist() == [row["area"] for row in rows]
        corners = [[x, y, x + w, y + h] for x, y, w, h in (row["bbox"] for row in rows)]
        assert index.boxes[part].tolist() == corners
