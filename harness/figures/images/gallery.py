"""A folder of pictures with a page that shows them: index.html and 001.jpg, 002.jpg, ..."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from detector.errors import UsageError
from detector.storage.outputs import claim_folder
from detector.storage.reading import first_bytes
from detector.storage.shown import one_line
from detector.storage.staging import remove_folder, staged_folder

if TYPE_CHECKING:
    from jinja2 import Environment

PAGE: Final = "index.html"
GENERATOR: Final = '<meta name="generator" content="harness: a folder of pictures">'
_OURS = re.compile(r"index\.html|\d{3,5}\.jpg")


@dataclass(frozen=True)
class Item:
    """A picture, what stands below it, and a table that opens (headings first)."""

    jpeg: bytes
    width: int
    height: int
    alt: str
    caption: str
    table: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class Section:
    """Pictures under one heading."""

    heading: str
    text: str
    items: Sequence[Item] = field(default_factory=tuple)


@dataclass(frozen=True)
class Gallery:
    """A whole page."""

    title: str
    text: Sequence[str]
    sections: Sequence[Section]


def write_gallery(out: Path, gallery: Gallery) -> Path:
    """The folder, whole or not at all. Returns its page. Whether it may be replaced, ``claim_gallery`` has said."""
    items = [item for section in gallery.sections for item in section.items]
    names = {id(item): f"{number:03d}.jpg" for number, item in enumerate(items, start=1)}
    page = _environment().get_template("gallery.html.j2").render(gallery=gallery, names=names, generator=GENERATOR)
    with staged_folder(out) as folder:
        for item in items:
            (folder / names[id(item)]).write_bytes(item.jpeg)
        (folder / PAGE).write_text(page, encoding="utf-8", errors="backslashreplace")
        if out.exists():
            remove_folder(out)
    return out / PAGE


def claim_gallery(out: Path, *, force: bool) -> Path:
    """``out``, if a gallery may be written there: it is not there, or empty, or with ``force`` one of ours.

    Raises UsageError otherwise. A folder with any file that a gallery does not have is never replaced.
    """
    if not force or out.is_symlink() or not out.is_dir() or not any(out.iterdir()):
        try:
            return claim_folder(out)
        except UsageError as error:
            if not is_gallery(out):
                raise
            raise UsageError(
                f"{out} has the pictures of an earlier command. Name another folder, or add --force."
            ) from error
    if not is_gallery(out):
        raise UsageError(
            f"{out} holds other files than pictures of this command; it is not replaced, also with --force."
        )
    return out


def is_gallery(folder: Path) -> bool:
    """Whether all of a folder's files are those of a gallery."""
    page = folder / PAGE
    if folder.is_symlink() or not page.is_file() or page.is_symlink():
        return False
    if not all(_OURS.fullmatch(path.name) and path.is_file() and not path.is_symlink() for path in folder.iterdir()):
        return False
    return GENERATOR.encode() in first_bytes(page, 2000)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("harness.figures.images"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["one_line"] = one_line
    environment.filters["identity"] = id
    return environment
