"""What every reader makes of an export: images with labelled boxes, and a list of what was left out. Free of torch."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NewType

from detector.data.fix.files import ImageFiles, file_names
from detector.data.fix.tally import Tally
from detector.errors import DataError
from detector.storage.reading import LARGE, decode_json, decode_text, read_bytes

FORMS: Final = ("voc", "yolo", "cvat", "label-studio", "via", "roboflow")
Point = tuple[float, float]
JSON = NewType("JSON", object)  # by this name in errors

NO_FILE: Final = "images whose file was not found (left out)"
NO_LABEL: Final = "shapes without a class (left out)"
NO_SHAPE: Final = "shapes that have no box, or no readable numbers (left out)"
OUTLINES: Final = "outlines (the box around each)"
TURNED: Final = "turned boxes (the upright box around each)"


@dataclass(frozen=True)
class Labelled:
    """One object: the corners of its outline, in pixels, or as fractions of the image's sides."""

    name: str
    points: tuple[Point, ...]
    fractions: bool = False
    ignored: bool = False  # neither trained on nor scored


@dataclass
class Picked:
    """One image of an export. file: its path below the export's folder."""

    file: str
    boxes: list[Labelled]
    size: tuple[float, float] | None = None  # width and height, as the export says
    split: str | None = None  # where the export has splits
    group: str | None = None  # what it stays together with, where the export says


@dataclass
class Export:
    """An export's images; names: its classes in their order, used or not."""

    form: str
    root: Path
    files: ImageFiles
    images: list[Picked] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    told: Tally = field(default_factory=Tally)

    def find(self, name: str, *, near: str = "") -> str | None:
        """The image file that the export means; None, and told, where there is none."""
        found = self.files.find(name, near=near)
        if found is None:
            self.told.add(NO_FILE, name[:200])
        return found


@dataclass(frozen=True)
class Source:
    """A folder, or one file of it, that somebody exported. only: that file, relative to the root."""

    root: Path
    names: tuple[str, ...]  # all files, relative to the root
    only: str | None = None

    @staticmethod
    def at(path: Path) -> Source:
        """Raises DataError for what is neither a folder nor a file."""
        if path.is_file():
            if path.suffix.lower() in (".zip", ".tar", ".gz", ".7z", ".rar"):
                raise DataError(f"{path} is an archive. Unpack it, and give the folder.")
            return Source(path.parent, tuple(file_names(path.parent)), path.name)
        if not path.is_dir():
            raise DataError(f"{path} is no file and no folder. Give the folder of the export.")
        return Source(path, tuple(file_names(path)))

    def ending(self, *suffixes: str) -> list[str]:
        """The files that end like this, whatever their case; only the one that was named, if one was."""
        names = self.names if self.only is None else (self.only,)
        return [name for name in names if name.lower().endswith(suffixes)]

    def export(self, form: str) -> Export:
        """An export to be filled."""
        return Export(form, self.root, ImageFiles.below(self.root))


def read_rows(path: Path) -> Any:
    """A JSON file as plain data. Raises DataError."""
    return decode_json(read_bytes(path, most=LARGE, raises=DataError), JSON, where=str(path), raises=DataError)


def read_table(path: Path) -> list[dict[str, str]]:
    """A CSV file with a heading, as one row per line. Raises DataError."""
    text = decode_text(read_bytes(path, most=LARGE, raises=DataError), where=str(path), raises=DataError)
    try:
        rows = list(csv.DictReader(io.StringIO(text.removeprefix("#"), newline=""), strict=True))
    except csv.Error as error:
        raise DataError(f"{path} is no CSV: {error}.") from error
    return [{key: value for key, value in row.items() if isinstance(value, str)} for row in rows]


def rectangle(
    x: float, y: float, width: float, height: float, degrees: float = 0.0, *, centre: bool
) -> tuple[Point, ...]:
    """Corners of a box that is turned clockwise, about its centre or its first corner."""
    about = (x + width / 2, y + height / 2) if centre else (x, y)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
    if degrees % 360 == 0:
        return corners
    return tuple(
        (
            about[0] + (px - about[0]) * cos - (py - about[1]) * sin,
            about[1] + (px - about[0]) * sin + (py - about[1]) * cos,
        )
        for px, py in corners
    )


def ellipse(cx: float, cy: float, rx: float, ry: float, degrees: float = 0.0) -> tuple[Point, Point]:
    """Two opposite corners of the box around an ellipse that is turned."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    half_x, half_y = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
    return (cx - half_x, cy - half_y), (cx + half_x, cy + half_y)


def in_order(names: Iterable[str]) -> list[str]:
    """Each name once, in alphabetical order."""
    return sorted(set(names))


def split_named(name: str) -> str | None:
    """The split that a folder or a list of other tools means: train, val or test."""
    known = {
        "train": ("train", "training", "train2017"),
        "val": ("val", "valid", "validation", "val2017"),
        "test": ("test", "testing"),
    }
    return next((split for split, names in known.items() if name.strip().lower() in names), None)


def pairs(values: Sequence[float]) -> tuple[Point, ...]:
    """x, y, x, y, ... as points."""
    return tuple(zip(values[::2], values[1::2], strict=True))
