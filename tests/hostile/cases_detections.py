"""Files of detections, scored by ``harness score``."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from tests.hostile.case import Case, Expected, either, noted, refused, right
from tests.hostile.coco import Content, annotations, content, write_root
from tests.hostile.files import NOT_JSON, SPECIAL
from tests.hostile.invariant import Action, command

AREA: Final = "detections"


def _truth(data: Content | None = None) -> list[dict[str, Any]]:
    """Detections equal to the boxes of the set."""
    rows = (data or content())["annotations"]
    return [{**{key: row[key] for key in ("image_id", "category_id", "bbox")}, "score": 0.9} for row in rows]


def _first(**fields: Any) -> list[dict[str, Any]]:
    rows = _truth()
    rows[0] |= fields
    return rows


def _every(change: Callable[[dict[str, Any]], dict[str, Any]]) -> list[dict[str, Any]]:
    return [row | change(row) for row in _truth()]


def _without(name: str) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != name} for row in _truth()]


def _corners(row: dict[str, Any]) -> dict[str, Any]:
    x, y, width, height = row["bbox"]
    return {"bbox": [x + 20, y + 15, x + 20 + width, y + 15 + height]}


FULL: Final = right("100.000")
GIVEN: tuple[tuple[str, Any, Expected], ...] = (
    ("equal to the truth", _truth(), FULL),
    ("with fields of other tools", _every(lambda row: {"segmentation": [], "area": 1, "id": 7}), FULL),
    ("whole numbers as 1.0", _every(lambda row: {"image_id": float(row["image_id"])}), either()),
    ("none", [], either()),
    ("a score of 0", _every(lambda row: {"score": 0}), FULL),
    ("a score of -1", _first(score=-1.0), either()),
    ("a score of 1e308", _first(score=1e308), either()),
    ("a score of NaN", _first(score=float("nan")), refused()),
    ("a score of Infinity", _first(score=float("inf")), refused()),
    ("a score of 1e999", "1e999", refused()),
    ("a score as text", _first(score="high"), refused("score")),
    ("a score null", _first(score=None), refused("score")),
    ("no score", _without("score"), refused("score")),
    ("no box", _without("bbox"), refused("bbox")),
    ("no image id", _without("image_id"), refused("image_id")),
    ("no category", _without("category_id"), refused("category_id")),
    ("a box of three numbers", _first(bbox=[1, 2, 3]), refused("bbox")),
    ("a box of five numbers", _first(bbox=[1, 2, 3, 4, 5]), refused("bbox")),
    ("a box null", _first(bbox=None), refused("bbox")),
    ("a box of words", _first(bbox=["a", "b", "c", "d"]), refused("bbox")),
    ("a box with NaN", _first(bbox=[float("nan"), 0, 5, 5]), refused()),
    ("a box with Infinity", _first(bbox=[0, 0, float("inf"), 5]), refused()),
    ("a box with -Infinity", _first(bbox=[float("-inf"), 0, 5, 5]), refused()),
    ("a box of 1e308", _first(bbox=[1e308] * 4), either()),
    ("negative sides", _every(lambda row: {"bbox": [30, 30, -10.0, -10.0]}), right("negative")),
    ("one negative side", _first(bbox=[30, 30, 10, -10]), right("negative")),
    ("corners in place of sides", _every(_corners), noted("image")),
    ("boxes outside of their image", _every(lambda row: {"bbox": [500, 500, 20, 20]}), noted("image")),
    ("category 0", _every(lambda row: {"category_id": 0}), refused("category")),
    ("a category of 2^64", _first(category_id=2**64), refused("category_id")),
    ("a category by its name", _first(category_id="a"), refused("category_id")),
    ("an unknown image", _first(image_id=99), refused("99")),
    ("an image by its name", _first(image_id="1.jpg"), refused("image_id")),
    ("an image id of -1", _first(image_id=-1), refused("-1")),
    ("an object", {"annotations": _truth()}, refused()),
    ("lists of numbers", [[1, 2, 3, 4, 5, 6]], refused()),
    ("text", "text", refused()),
)


def _written(data: Any, name: str = "dets.json") -> Callable[[Path], Action]:
    def given(folder: Path) -> Action:
        text = json.dumps(data)
        if data == "1e999":
            text = json.dumps(_truth()).replace("0.9", "1e999", 1)
        content = text.encode()
        (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return _score(folder, name)

    return given


def _bytes(data: bytes, name: str = "dets.json") -> Callable[[Path], Action]:
    def given(folder: Path) -> Action:
        (folder / name).write_bytes(data)
        return _score(folder, name)

    return given


def _score(folder: Path, name: str = "dets.json") -> Action:
    return command("score", folder / name, "--data", write_root(folder))


def _special(make: Callable[[Path], None]) -> Callable[[Path], Action]:
    def given(folder: Path) -> Action:
        make(folder / "dets.json")
        return _score(folder)

    return given


def _ids_from_zero(folder: Path) -> Action:
    """Annotation ids decide nothing: pycocotools takes the id 0 for no match."""
    val = content()
    for i, row in enumerate(val["annotations"]):
        row["id"] = i
    (folder / "dets.json").write_text(json.dumps(_truth(val)))
    return command("score", folder / "dets.json", "--data", write_root(folder, None, val))


def _areas_above(folder: Path) -> Action:
    val = content()
    for row in val["annotations"]:
        row["area"] = 5000.0
    (folder / "dets.json").write_text(json.dumps(_truth(val)))
    return command("score", folder / "dets.json", "--data", write_root(folder, None, val))


def _broken_truth(folder: Path) -> Action:
    (folder / "dets.json").write_text(json.dumps(_truth()))
    root = write_root(folder)
    annotations(root, "val2017").write_text("{")
    return command("score", folder / "dets.json", "--data", root)


_TEXT: Final = json.dumps(_truth()).encode()
RAW: tuple[tuple[str, bytes, str, Expected], ...] = (
    ("compressed", gzip.compress(_TEXT), "dets.json.gz", FULL),
    ("compressed, cut", gzip.compress(_TEXT)[:-20], "dets.json.gz", refused("dets.json.gz")),
    (
        "compressed, a bit flipped",
        gzip.compress(_TEXT)[:40] + b"\xff" + gzip.compress(_TEXT)[41:],
        "d.json.gz",
        refused(),
    ),
    ("named .gz, not compressed", _TEXT, "dets.json.gz", refused("dets.json.gz")),
    ("compressed, not named so", gzip.compress(_TEXT), "dets.json", refused("dets.json")),
    ("a byte order mark", b"\xef\xbb\xbf" + _TEXT, "dets.json", either()),
    ("a key twice", _TEXT.replace(b'"score": 0.9', b'"score": 0.9, "score": 0.1', 1), "dets.json", either()),
    ("a comma at the end", _TEXT[:-1] + b",]", "dets.json", refused("dets.json")),
    ("cut in the middle", _TEXT[:100], "dets.json", refused("dets.json")),
    ("a line for each", b"\n".join(json.dumps(row).encode() for row in _truth()), "dets.json", refused("dets.json")),
    ("nothing compressed", gzip.compress(b""), "dets.json.gz", refused("dets.json.gz")),
    ("100 MB of spaces compressed", gzip.compress(b" " * 10**8), "dets.json.gz", refused("dets.json.gz")),
)


def _cases() -> Iterator[Case]:
    for name, data, expected in GIVEN:
        yield Case(AREA, name, _written(data), expected)
    for name, raw, file, expected in RAW:
        yield Case(AREA, name, _bytes(raw, file), expected)
    for name, raw in NOT_JSON:
        yield Case(AREA, f"file of {name}", _bytes(raw), refused("dets.json"))
    for name, make in SPECIAL:
        yield Case(AREA, name, _special(make), Expected((1, 2), ("dets.json",)))
    yield Case(AREA, "no file", lambda folder: _score(folder), Expected((1, 2), ("dets.json",)))
    yield Case(AREA, "annotation ids from 0", _ids_from_zero, FULL)
    yield Case(AREA, "areas above the boxes'", _areas_above, right("100.000", "area"))
    yield Case(AREA, "the truth is broken", _broken_truth, refused("instances_val2017.json"))


CASES: Final = tuple(_cases())
