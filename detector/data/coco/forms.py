"""The second reading of an annotation file that is not plain: what is harmless is read, all else named. Free of torch.

Labelling tools write numbers as text, ids as names, false for 0, and leave out what they do not know. Such a file is
read here, entry by entry, into the entries of a plain one, and each deviation counted.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from detector.data.coco.problems import LISTED, Finding

Entry = Mapping[str, Any]

_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,19}(\.0*)?")
_NUMBER: Final = re.compile(r"[+-]?([0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?")
_CROWD: Final[dict[object, int]] = {None: 0, 0: 0, 1: 1, "": 0, "0": 0, "1": 1, "false": 0, "true": 1}
_MOST: Final = 2**63 - 1
_MISSING: Final = object()


@dataclass
class _Tally:
    """Counts by kind, with examples."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[tuple[int | None, str]]] = field(default_factory=dict)

    def add(self, kind: str, key: int | None, message: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        found = self.examples.setdefault(kind, [])
        if len(found) < LISTED:
            found.append((key, message))

    def findings(self) -> list[Finding]:
        return [Finding(kind, count, tuple(self.examples[kind])) for kind, count in self.counts.items()]


@dataclass(frozen=True)
class Forms:
    """What the second reading gave: plain entries, what could not be read, and what was read though it is not plain.

    images: (id, file name, width, height). categories: (id, name). annotations: (id, image id, category id, bbox,
    crowd, area). Entries that cannot be read are left out, and so are the annotations of such images and categories.
    """

    images: list[tuple[int, str, int, int]]
    categories: list[tuple[int, str]]
    annotations: list[tuple[int, int, int, tuple[float, float, float, float], int, float | None]]
    problems: list[Finding]
    notes: list[Finding]


def parse(content: bytes) -> tuple[Any, str]:
    """JSON with what common writers put into it: NaN, a byte order mark, UTF-16 or UTF-32. Returns its encoding too.

    Raises ValueError for anything else.
    """
    encoding = json.detect_encoding(content)
    try:
        return json.loads(content.decode(encoding)), encoding
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"line {line}: byte {content[error.start]:#04x} is not {encoding.upper()}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def read_forms(file: Entry, encoding: str) -> Forms:
    """The lists ``images``, ``categories`` and ``annotations`` of a parsed file; the last may be missing."""
    problems, notes = _Tally(), _Tally()
    if encoding != "utf-8":
        notes.add("files in another encoding than plain UTF-8", None, encoding)
    images, categories, annotations = (
        _objects(file.get(name, []), name, problems) for name in ("images", "categories", "annotations")
    )
    image_ids = _named_ids(images, "image", notes, ordered=False)
    category_ids = _named_ids(categories, "category", notes, ordered=True)
    read_images = [_image(entry, image_ids, problems, notes) for entry in images]
    read_categories = [_category(entry, category_ids, problems, notes) for entry in categories]
    # What is wrong with an image or a category is told once, not again for each of its boxes.
    lost = (_lost(images, read_images, image_ids), _lost(categories, read_categories, category_ids))
    ids = _annotation_ids(annotations, notes)
    rows = []
    for key, entry in zip(ids, annotations, strict=True):
        row = _annotation(key, entry, (image_ids, category_ids), lost, problems, notes)
        if row is not None:
            rows.append(row)
    return Forms(
        [row for row in read_images if row is not None],
        [row for row in read_categories if row is not None],
        rows,
        problems.findings(),
        notes.findings(),
    )


def _objects(entries: Iterable[Any], name: str, problems: _Tally) -> list[Entry]:
    """Those that are objects."""
    kept: list[Entry] = []
    for i, entry in enumerate(entries):
        if isinstance(entry, dict):
            kept.append(entry)
        else:
            problems.add(f"{name} that are no objects", None, f"{name}[{i}] is {_shown(entry)}, not an object")
    return kept


def _named_ids(entries: list[Entry], what: str, notes: _Tally, *, ordered: bool) -> dict[str, int] | None:
    """Numbers for ids that are text, by the text; None where all are numbers, or none is text.

    ordered: numbered by the order of the names, so that two splits agree; else in the file's order.
    """
    given = [entry.get("id") for entry in entries]
    if not any(isinstance(key, str) and _whole(key) is None for key in given):
        return None
    names = [str(key) for key in given if isinstance(key, str | int) and not isinstance(key, bool)]
    names = list(dict.fromkeys(sorted(names) if ordered else names))
    order = "the order of the names" if ordered else "the file's order"
    numbers = {name: i for i, name in enumerate(names, 1)}
    for name, i in numbers.items():
        notes.add(f"{what} ids that are text, numbered in {order}", i, f"{_shown(name)} is {i}")
    return numbers


def _id(value: Any, numbers: dict[str, int] | None, name: str, notes: _Tally) -> int | None:
    if numbers is not None:
        return numbers.get(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else None
    return _integer(value, name, notes)


def _image(
    entry: Entry, numbers: dict[str, int] | None, problems: _Tally, notes: _Tally
) -> tuple[int, str, int, int] | None:
    given, name = entry.get("id", _MISSING), entry.get("file_name", _MISSING)
    key = _id(given, numbers, "image id", notes)
    if key is None:
        problems.add("images without a readable id", None, f"image id {_shown(given)} is no whole number of 64 bits")
        return None
    sides = [_integer(entry.get(side, _MISSING), side, notes) for side in ("width", "height")]
    if not isinstance(name, str):
        problems.add("images without a file name", key, f"image {key}: file_name {_shown(name)} is no text")
    if None in sides:
        shown = " x ".join(_shown(entry.get(side, _MISSING)) for side in ("width", "height"))
        problems.add("images whose size is not known", key, f"image {key}: its size {shown} is not in whole numbers")
    if not isinstance(name, str) or sides[0] is None or sides[1] is None:
        return None
    return key, name, sides[0], sides[1]


def _category(entry: Entry, numbers: dict[str, int] | None, problems: _Tally, notes: _Tally) -> tuple[int, str] | None:
    given, name = entry.get("id", _MISSING), entry.get("name", _MISSING)
    key = _id(given, numbers, "category id", notes)
    if key is None:
        problems.add(
            "categories without a readable id", None, f"category id {_shown(given)} is no whole number of 64 bits"
        )
        return None
    if isinstance(name, int | float) and not isinstance(name, bool):
        notes.add("category names written as numbers", key, f"category {key} is {name}")
        name = str(name)
    if not isinstance(name, str):
        problems.add("categories without a name", key, f"category {key}: name {_shown(name)} is no text")
        return None
    return key, name


def _lost(entries: list[Entry], rows: list[Any], numbers: dict[str, int] | None) -> set[int]:
    """Ids of entries that could not be read."""
    silent = _Tally()
    found = (_id(entry.get("id"), numbers, "", silent) for entry, row in zip(entries, rows, strict=True) if row is None)
    return {key for key in found if key is not None}


def _annotation_ids(entries: list[Entry], notes: _Tally) -> list[int]:
    """Ids as the file has them, or 1, 2, ... where one of them is no number: nothing is decided by them."""
    silent = _Tally()
    ids = [_integer(entry.get("id"), "annotation id", silent) for entry in entries]
    if None in ids:
        for i, (key, entry) in enumerate(zip(ids, entries, strict=True), 1):
            if key is None:
                shown = _shown(entry.get("id", _MISSING))
                notes.add("annotations without a number as id; all are numbered in the file's order", i, shown)
        return list(range(1, len(ids) + 1))
    for entry in entries:
        _integer(entry.get("id"), "annotation id", notes)
    return [key for key in ids if key is not None]


def _annotation(
    key: int,
    entry: Entry,
    numbers: tuple[dict[str, int] | None, dict[str, int] | None],
    lost: tuple[set[int], set[int]],
    problems: _Tally,
    notes: _Tally,
) -> tuple[int, int, int, tuple[float, float, float, float], int, float | None] | None:
    image = _id(entry.get("image_id"), numbers[0], "image_id", notes)
    category = _id(entry.get("category_id"), numbers[1], "category_id", notes)
    named = f"annotation {key} of image {_shown(entry.get('image_id', _MISSING))}"
    box = _box(entry.get("bbox", _MISSING), notes)
    crowd = _crowd(entry.get("iscrowd"), key, named, notes)
    area = None if entry.get("area") is None else _real(entry["area"], "area", notes)
    whole = True
    for good, kind, said in (
        (image is not None, "annotations without a known image", f"{named}: unknown image id"),
        (
            category is not None,
            "annotations without a known category",
            f"{named}: unknown category id {_shown(entry.get('category_id', _MISSING))}",
        ),
        (box is not None, "boxes that are not four numbers", f"{named}: bbox {_shown(entry.get('bbox', _MISSING))}"),
        (
            crowd is not None,
            "values of iscrowd that are neither 0 nor 1",
            f"{named}: iscrowd {_shown(entry.get('iscrowd'))}",
        ),
        (
            area is not None or entry.get("area") is None,
            "areas that are no numbers",
            f"{named}: area {_shown(entry.get('area'))}",
        ),
    ):
        if not good:
            problems.add(kind, key, said)
            whole = False
    if not whole or image in lost[0] or category in lost[1]:
        return None
    assert image is not None
    assert category is not None
    assert box is not None
    assert crowd is not None
    return key, image, category, box, crowd, area


def _crowd(value: Any, key: int, named: str, notes: _Tally) -> int | None:
    plain = value.strip().lower() if isinstance(value, str) else value
    found = _CROWD.get(plain) if isinstance(plain, str | int | float | None) else None
    if found is not None and value is not None and type(value) is not int:
        notes.add("values of iscrowd that are not written as 0 or 1", key, f"{named}: {_shown(value)}")
    return found


def _box(value: Any, notes: _Tally) -> tuple[float, float, float, float] | None:
    if not isinstance(value, list) or len(value) != 4:
        return None
    sides = [_real(side, "bbox", notes) for side in value]
    x, y, width, height = sides
    if x is None or y is None or width is None or height is None:
        return None
    return x, y, width, height


def _integer(value: Any, name: str, notes: _Tally) -> int | None:
    """A whole number that a column holds, also written as text or 128.0; else None."""
    found = _whole(value)
    if found is not None and not isinstance(value, int):
        _as_other(value, name, notes)
    return found


def _whole(value: Any) -> int | None:
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        value = int(value.strip().partition(".")[0])
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    elif not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if -_MOST - 1 <= value <= _MOST else None


def _real(value: Any, name: str, notes: _Tally) -> float | None:
    """A number, also written as text; else None. Not finite ones are told by the checks of all files."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        _as_other(value, name, notes)
        return float(value)
    return None


def _as_other(value: Any, name: str, notes: _Tally) -> None:
    how = "text" if isinstance(value, str) else "decimals"
    notes.add(f"values of {name} written as {how}, read as numbers", None, _shown(value))


def _shown(value: Any) -> str:
    """For a message: short, and without anything that acts in a terminal."""
    if value is _MISSING:
        return "(missing)"
    text = ascii(value) if not isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
