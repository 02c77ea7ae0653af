"""COCO annotations: each file is checked, opened as training does, and copied by ``data subset``, which agree."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from detector.data.coco.index import CocoIndex, load_index
from tests.hostile.case import Case, Expected, either, noted, right, told
from tests.hostile.coco import (
    TRAIN,
    Content,
    annotations,
    content,
    every,
    first,
    more,
    without,
    write_root,
)
from tests.hostile.files import ALARM, NOT_JSON, SPECIAL
from tests.hostile.invariant import Action, command

AREA: Final = "annotations"
Edit = Callable[[Content], object]


def _boxes(*first_box: float) -> Callable[[CocoIndex], bool]:
    """The first box, as (x1, y1, x2, y2)."""
    return lambda index: index.boxes[0].tolist() == list(first_box)


def _plain(index: CocoIndex) -> bool:
    return (index.num_images, len(index.boxes), index.category_ids.tolist()) == (6, 18, [1, 2])


def _string_ids(data: Content) -> None:
    for image in data["images"]:
        image["id"] = f"img-{image['id']}"
    for row in data["annotations"]:
        row["image_id"] = f"img-{row['image_id']}"


def _strings(data: Content) -> None:
    for row in data["annotations"]:
        row["bbox"] = [f"{side:.4f}" for side in row["bbox"]]


def _renumbered(data: Content) -> None:
    for i, row in enumerate(data["annotations"]):
        row["id"] = i


def _negative_ids(data: Content) -> None:
    for image in data["images"]:
        image["id"] = -image["id"]
    for row in data["annotations"]:
        row["image_id"] = -row["image_id"]


def _set(**fields: Any) -> Edit:
    return lambda data: data.update(fields)


def _drop(name: str) -> Edit:
    return lambda data: data.pop(name)


# Read as if it were written properly; what the first box or the counts must be.
HARMLESS: tuple[tuple[str, Edit, Expected], ...] = (
    ("no fault", lambda data: None, right(value=_plain)),
    ("annotation ids from 0", _renumbered, right(value=_plain)),
    ("iscrowd false", every("annotations", iscrowd=False), right(value=_plain)),
    ("iscrowd true once", first("annotations", iscrowd=True), right(value=lambda index: index.crowd.tolist()[0])),
    ("iscrowd null", every("annotations", iscrowd=None), right(value=_plain)),
    ("no iscrowd", without("annotations", "iscrowd"), right(value=_plain)),
    ("no area", without("annotations", "area"), right(value=lambda index: index.areas[0] == 400)),
    ("area null", every("annotations", area=None), right(value=lambda index: index.areas[0] == 400)),
    ("no area and no iscrowd", without("annotations", "area", "iscrowd"), right(value=_plain)),
    ("sides 48.0", every("images", width=48.0, height=40.0), right(value=_plain)),
    ("boxes as text", _strings, right(value=_boxes(4, 4, 24, 24))),
    ("a category listed twice alike", more("categories"), right(value=_plain)),
    ("image ids as text", _string_ids, right(value=lambda index: index.num_images == 6)),
    ("fields of other tools", every("images", license=3, coco_url="http://x", extra={"a": [1]}), right(value=_plain)),
    ("a box that overhangs by half a pixel", first("annotations", bbox=[-0.5, 0, 20, 20]), right(value=_plain)),
    ("a box that overhangs by 6 pixels", first("annotations", bbox=[30, 4, 24, 20]), right(value=_plain)),
    ("a box without area", first("annotations", bbox=[4, 4, 0, 0]), right(value=_plain)),
    ("an image without boxes", lambda data: data["annotations"].__delitem__(slice(0, 3)), right()),
    ("info and licenses", _set(info={"year": 2017}, licenses=[]), right(value=_plain)),
    ("RLE of a crowd", first("annotations", iscrowd=1, segmentation={"counts": [1, 2], "size": [40, 48]}), right()),
    ("largest ids", first("annotations", id=2**53 - 1), right(value=_plain)),
)
# Not in silence: counted, noted or refused, but the same by all that read it.
NOTED: tuple[tuple[str, Edit, Expected], ...] = (
    ("negative image ids", _negative_ids, either()),
    ("areas above the boxes'", every("annotations", area=5000.0), noted("area")),
    ("an area as text", first("annotations", area="12.5"), either()),
    ("sides as text", every("images", width="48", height="40"), noted("48")),
    ("an id of 2^63 - 1", first("annotations", id=2**63 - 1), either()),
    ("a score beside each box", every("annotations", score=0.5), either()),
    ("no box at all", _set(annotations=[]), noted("box")),
)
# Refused by all that read it. The words are in the check's answer.
HARMFUL: tuple[tuple[str, Edit, tuple[str, ...]], ...] = (
    ("no images", _drop("images"), ("images",)),
    ("no categories", _drop("categories"), ("categories",)),
    ("no annotations", _drop("annotations"), ("annotations",)),
    ("an empty list of images", _set(images=[]), ("image",)),
    ("an empty list of categories", _set(categories=[]), ("categor",)),
    ("images null", _set(images=None), ("images",)),
    ("images an object", _set(images={}), ("images",)),
    ("annotations of null", _set(annotations=[None]), ("annotations",)),
    ("an image id twice", more("images"), ("image id 1", "twice")),
    ("an annotation id twice", more("annotations"), ("annotation id 1", "twice")),
    ("a category id with two names", more("categories", name="z"), ("category id 1",)),
    ("a box of an unknown image", first("annotations", image_id=99), ("99",)),
    ("a box of an unknown category", first("annotations", category_id=99), ("99",)),
    ("category 0 of labels from 1", every("annotations", category_id=0), ("category", "0")),
    ("a box of three numbers", first("annotations", bbox=[1, 2, 3]), ("bbox",)),
    ("a box of five numbers", first("annotations", bbox=[1, 2, 3, 4, 5]), ("bbox",)),
    ("a box null", first("annotations", bbox=None), ("bbox",)),
    ("a box of words", first("annotations", bbox=["a", "b", "c", "d"]), ("bbox",)),
    ("an empty box", first("annotations", bbox=[]), ("bbox",)),
    ("a box of lists", first("annotations", bbox=[[1], [2], [3], [4]]), ("bbox",)),
    ("no box field", without("annotations", "bbox"), ("bbox",)),
    ("no image id", without("annotations", "image_id"), ("image",)),
    ("a box with NaN", first("annotations", bbox=[float("nan"), 0, 5, 5]), ("finite",)),
    ("a box with Infinity", first("annotations", bbox=[0, 0, float("inf"), 5]), ("finite",)),
    ("a box of 1e308", first("annotations", bbox=[1e308, 1e308, 1e308, 1e308]), ("bbox",)),
    ("negative sides", first("annotations", bbox=[20, 20, -5, -5]), ("negative",)),
    ("a box wholly outside", first("annotations", bbox=[500, 500, 10, 10]), ("outside",)),
    ("a negative area", first("annotations", area=-5.0), ("area",)),
    ("an infinite area", first("annotations", area=float("inf")), ("area",)),
    ("an area of words", first("annotations", area="large"), ("area",)),
    ("iscrowd 2", first("annotations", iscrowd=2), ("iscrowd",)),
    ("iscrowd of words", first("annotations", iscrowd="no"), ("iscrowd",)),
    ("a width of 0", first("images", width=0), ("0 x 40",)),
    ("a negative width", first("images", width=-48), ("-48",)),
    ("a width of null", every("images", width=None), ("size",)),
    ("a width of 1e10", first("images", width=10**10), ("10000000000",)),
    ("a width of 2^70", first("images", width=2**70), ("size",)),
    ("a width of 48.5", first("images", width=48.5), ("48.5",)),
    ("no width", without("images", "width"), ("size",)),
    ("an image id of 2^64", first("images", id=2**64), ("id",)),
    ("an image id of null", first("images", id=None), ("id",)),
    ("an empty file name", first("images", file_name=""), ("file name",)),
    ("a file name above the root", first("images", file_name="../../secret.jpg"), ("../../secret.jpg",)),
    ("an absolute file name", first("images", file_name="/etc/passwd"), ("/etc/passwd",)),
    ("a file name with a zero", first("images", file_name="a\0b.jpg"), ("file name",)),
    ("a file name null", first("images", file_name=None), ("file_name",)),
    ("a file name number", first("images", file_name=7), ("file_name",)),
    ("a category name null", first("categories", name=None), ("name",)),
    ("no category name", without("categories", "name"), ("name",)),
    ("a category id as words", first("categories", id="one"), ("id",)),
    ("a category id of 2^64", first("categories", id=2**64), ("id",)),
    (
        "three kinds of fault",
        lambda data: (
            first("annotations", bbox=[1, 1, -1, -1])(data),
            first("images", width=0)(data),
            data["annotations"][5].update(category_id=99),
        ),
        ("negative", "0 x 40", "99"),
    ),
)
# Found by the check, and where something is made of it; the file itself can be opened.
CHECKED: tuple[tuple[str, Edit, tuple[str, ...]], ...] = (
    ("one file under two ids", more("images", id=77), ("1.jpg",)),
    ("a file name of 5,000 letters", first("images", file_name="a" * 5000), ("aaa",)),
    ("a file name with half a surrogate pair", first("images", file_name="\ud800.jpg"), ("d800",)),
    ("a file name that acts", first("images", file_name=f"{ALARM}.jpg"), ("owned",)),
    ("a file name with a backslash", first("images", file_name="a\\1.jpg"), ("a\\",)),
    ("names that differ between the splits", first("categories", name="猫 \u00e9"), ("category",)),
    ("a third category that only one split has", more("categories", id=90, name="c"), ("90",)),
    ("all boxes in 0..1", every("annotations", bbox=[0.1, 0.1, 0.5, 0.5]), ("0",)),
    ("all boxes are crowds", every("annotations", iscrowd=1), ("crowd",)),
)
_TEXT = json.dumps(content())
# The file's bytes.
RAW: tuple[tuple[str, bytes, Expected], ...] = (
    ("a byte order mark", b"\xef\xbb\xbf" + _TEXT.encode(), right(value=_plain)),
    ("line ends of Windows", json.dumps(content(), indent=1).replace("\n", "\r\n").encode(), right(value=_plain)),
    ("NaN in a field that nobody reads", _TEXT.replace('"images"', '"x": NaN, "images"', 1).encode(), either()),
    ("the whole in UTF-16", _TEXT.encode("utf-16"), either()),
    ("cut in the middle", _TEXT[: len(_TEXT) // 2].encode(), told("instances_train2017.json")),
    ("two documents", (_TEXT + _TEXT).encode(), told("instances_train2017.json")),
    ("a comma at the end", (_TEXT[:-1] + ",}").encode(), told("instances_train2017.json")),
    ("single quotes", str(content()).encode(), told("instances_train2017.json")),
    ("the key annotations twice", _TEXT.replace('"images"', '"annotations": [], "images"', 1).encode(), either()),
    ("a number of 5,000 digits", _TEXT.replace('"id": 1,', f'"id": {"9" * 5000},', 1).encode(), told()),
    ("a list", json.dumps([content()]).encode(), told("instances_train2017.json")),
)


def _case(
    name: str, write: Callable[[Path], Path], expected: Expected, opened: Expected | None = None
) -> Iterator[Case]:
    """Checked, opened and copied. A check tells by exit code 1 what the others refuse."""
    found = {1 if code == 2 else code for code in expected.codes}
    codes = {2 if code == 1 else code for code in (opened or expected).codes}

    def verify(folder: Path) -> Action:
        return command("data", "verify", write(folder))

    def open_(folder: Path) -> Action:
        root = write(folder)
        return lambda: load_index(root, TRAIN)

    def subset(folder: Path) -> Action:
        return command("data", "subset", write(folder), "--out", folder / "few", "--images", "2", "--split", TRAIN)

    yield Case(AREA, f"{name}, checked", verify, Expected(tuple(found), expected.says))
    yield Case(AREA, f"{name}, opened", open_, Expected(tuple(codes), (), expected.value))
    yield Case(AREA, f"{name}, copied", subset, Expected(tuple(codes)), writes=("few",))


def _edited(edit: Edit) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        data = content()
        edit(data)
        return write_root(folder, data)

    return write


def _raw(given: bytes) -> Callable[[Path], Path]:
    return lambda folder: write_root(folder, given)


def _special(make: Callable[[Path], None]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        root = write_root(folder)
        make(annotations(root))
        return root

    return write


def _differing_names(folder: Path) -> Action:
    val = content()
    val["categories"] = [{"id": 1, "name": "b"}, {"id": 2, "name": "a"}]
    return command("data", "verify", write_root(folder, None, val))


def _missing_split(folder: Path) -> Action:
    return command("data", "verify", write_root(folder), "--split", "test2099")


def _no_root(folder: Path) -> Action:
    return command("data", "verify", folder / "nowhere")


def _cases() -> Iterator[Case]:
    for name, edit, expected in (*HARMLESS, *NOTED):
        yield from _case(name, _edited(edit), expected)
    for name, edit, words in HARMFUL:
        yield from _case(name, _edited(edit), told(*words))
    for name, edit, words in CHECKED:
        yield from _case(name, _edited(edit), told(*words), either())
    for name, given, expected in RAW:
        yield from _case(name, _raw(given), expected)
    for name, given in NOT_JSON:
        yield from _case(name, _raw(given), told("instances_train2017.json"))
    for name, make in SPECIAL:
        yield from _case(name, _special(make), told())
    yield Case(AREA, "names exchanged between the splits", _differing_names, told("category"))
    yield Case(AREA, "a split that is not there", _missing_split, told("test2099"))
    yield Case(AREA, "a root that is not there", _no_root, told())
    yield Case(AREA, "a root that is a file", lambda folder: command("data", "verify", _file(folder)), told())
    for split in ("../x", "a/b", "", "x\0y", ALARM):
        yield Case(AREA, f"the split {split!r}", _named(split), told())


def _file(folder: Path) -> Path:
    (folder / "file").write_text("x")
    return folder / "file"


def _named(split: str) -> Callable[[Path], Action]:
    return lambda folder: command("data", "verify", write_root(folder), "--split", split)


CASES: Final = tuple(_cases())
