"""One split's annotation file while it is mended, read as leniently as it can be. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from detector.data.coco.files import annotation_file, is_labelled
from detector.data.coco.releases import IMAGE_FOLDERS
from detector.data.fix.tally import Tally
from detector.data.fix.values import whole
from detector.errors import DataError
from detector.storage.reading import DEPTH, LARGE, read_bytes

Row = dict[str, Any]
BoxForm = Literal["xywh", "xyxy", "cxcywh"]


@dataclass(frozen=True)
class Choices:
    """What only the user can know. None: not said; then what depends on it is told, not guessed."""

    boxes: BoxForm | None = None  # what a box's four numbers are
    categories: Literal["names", "ids"] | None = None  # what a category is known by, where splits contradict each other
    exif: Literal["upright", "stored"] | None = None  # what boxes were drawn on, where sizes cannot tell
    merge_images: bool = False  # entries of one file become one, with the annotations of all
    drop_unclear: bool = False  # images whose annotations are unclear are left out
    link: bool = False  # hard links in place of copies


@dataclass
class Draft:
    """A split's rows as plain data, and what was done to them."""

    split: str
    file: Path  # relative to the root
    folder: str  # of its images, in the root
    labelled: bool
    other: Row  # top-level fields that are kept as they are
    images: list[Row]
    annotations: list[Row]
    categories: list[Row]
    done: Tally
    unclear: Tally  # needs a choice, or cannot be mended
    sources: dict[int, str] = field(default_factory=dict)  # image id -> its file, relative to the split's folder

    def of(self, row: Row, what: str = "annotation") -> str:
        """A row's name in a list of findings."""
        return f"{what} {row.get('id')!r} of {self.split}"


def read_draft(root: Path, split: str, done: Tally, unclear: Tally) -> Draft:
    """A split of a root. Raises DataError where the file is not JSON, or has no list of images."""
    path = annotation_file(root, split)
    file = path.relative_to(root)
    content = _decoded(path, str(file), done)
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise DataError(f"{path} cannot be mended: it has no list of images. Is it a COCO annotation file?")

    def rows(name: str) -> list[Row]:
        given = content.pop(name, None)
        if given is None:
            done.add(f"lists of {name} that are missing", str(file))
            return []
        if not isinstance(given, list):
            raise DataError(f"{path} cannot be mended: its {name} are no list.")
        for position, row in enumerate(given):
            if not isinstance(row, dict):
                done.add(f"entries of {name} that are no objects (dropped)", f"entry {position} of {split}")
        return [row for row in given if isinstance(row, dict)]

    labelled = is_labelled(root, split)
    annotations = rows("annotations") if labelled or "annotations" in content else []
    folder = IMAGE_FOLDERS.get(split, split)
    images, categories = rows("images"), rows("categories")
    return Draft(split, file, folder, labelled, content, images, annotations, categories, done, unclear)


def _decoded(path: Path, name: str, done: Tally) -> Any:
    content = read_bytes(path, most=LARGE, raises=DataError)
    encoding = json.detect_encoding(content)
    if encoding != "utf-8":
        done.add("files that were not plain UTF-8 (written as such)", f"{name} ({encoding})")
        try:
            content = content.decode(encoding).removeprefix("\ufeff").encode("utf-8", "surrogatepass")
        except UnicodeError as error:
            raise DataError(f"{path} cannot be mended: it is not {encoding}, though it begins like that.") from error
    try:
        return msgspec.json.decode(content)
    except (ValueError, RecursionError):
        return _with_constants(content, path, name, done)


def _with_constants(content: bytes, path: Path, name: str, done: Tally) -> Any:
    """JSON with NaN and Infinity, which become null."""
    replace = _counted(name, done)
    try:
        found = json.loads(content, parse_constant=replace)
    except RecursionError as error:
        raise DataError(f"{path} cannot be mended: it is nested more than {DEPTH} deep.") from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line} cannot be mended: byte {content[error.start]:#04x} is not UTF-8.") from error
    except ValueError as error:
        raise DataError(f"{path} cannot be mended: it is not JSON: {str(error).rstrip('.')}.") from error
    return found


def _counted(name: str, done: Tally) -> Callable[[str], None]:
    def replace(constant: str) -> None:
        done.add("values that are no JSON (null now)", f"{constant} in {name}")

    return replace


def new_ids(rows: list[Row], draft: Draft, what: str, *, lowest: int) -> None:
    """Give every row an id of ``lowest`` or more that no other has; those that have one keep it."""
    numbers = [whole(row.get("id")) for row in rows]
    free, seen = max((n for n in numbers if n is not None and n > 0), default=0) + 1, set[int]()
    for row, found in zip(rows, numbers, strict=True):
        if found is None or found < lowest or found in seen:
            reason = "given twice" if found in seen else f"no whole numbers from {lowest} on"
            draft.done.add(f"ids of {what}s that were {reason} (renumbered)", f"{draft.of(row, what)}: {free}")
            found, free = free, free + 1
        elif type(row["id"]) is not int:
            draft.done.add(f"ids of {what}s that were written as text or fractions", draft.of(row, what))
        seen.add(found)
        row["id"] = found
