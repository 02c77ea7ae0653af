"""A folder of pictures with pages that show them: index.html, page-2.html, ... and 001.jpg, 002.jpg, ..."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from detector.errors import UsageError
from detector.storage.outputs import claim_folder
from detector.storage.reading import first_bytes
from detector.storage.shown import one_line
from detector.storage.staging import remove_folder, staged_folder
from harness.console.bars import count_bar

if TYPE_CHECKING:
    from jinja2 import Environment

PAGE: Final = "index.html"
GENERATOR: Final = '<meta name="generator" content="harness: a folder of pictures">'
PER_PAGE: Final = 60  # pictures; a browser takes its time for many more
_OURS = re.compile(r"index\.html|page-\d{1,4}\.html|\d{3,5}\.jpg")


@dataclass(frozen=True)
class Item:
    """A picture, what stands below it, and a table that opens (headings first). unread: its image cannot be read."""

    jpeg: bytes
    width: int
    height: int
    alt: str
    caption: str
    table: Sequence[Sequence[str]] = ()
    unread: bool = False


@dataclass(frozen=True)
class Section:
    """Pictures under one heading, each drawn when it is written. wide: they are pairs."""

    heading: str
    text: str
    pictures: Sequence[Callable[[], Item]]
    wide: bool = False


@dataclass(frozen=True)
class Gallery:
    """A whole page, or several where there are more than ``PER_PAGE`` pictures."""

    title: str
    text: Sequence[str]
    sections: Sequence[Section]

    @property
    def count(self) -> int:
        """How many pictures it has."""
        return sum(len(section.pictures) for section in self.sections)


@dataclass(frozen=True)
class _Part:
    """What one page has of a section. continued: its first pictures are on an earlier page."""

    section: Section
    continued: bool
    items: Sequence[tuple[str, Item]]  # the picture's file, and what stands below it


@dataclass(frozen=True)
class Written:
    """A gallery on the disk. unread: how many of its images cannot be read."""

    page: Path
    unread: int

    def note(self, root: Path) -> str:
        """A sentence about images of ``root`` that cannot be read; "" where all can."""
        command = f"harness data verify {shlex.quote(str(root))}"
        return f"Images that cannot be read: {self.unread:,}. What is wrong with them: {command}" if self.unread else ""


def write_gallery(out: Path, gallery: Gallery) -> Written:
    """The folder, whole or not at all. Whether it may be replaced, ``claim_gallery`` has said.

    One page's pictures are in memory at a time.
    """
    template = _environment().get_template("gallery.html.j2")
    unread = 0
    names = [page_name(number) for number in range(max(1, -(-gallery.count // PER_PAGE)))]
    with staged_folder(out) as folder, count_bar("drawing", gallery.count) as advance:
        for name, parts in zip(names, _pages(gallery, advance), strict=True):
            for part in parts:
                for file, item in part.items:
                    (folder / file).write_bytes(item.jpeg)
                    unread += item.unread
            page = template.render(gallery=gallery, parts=parts, name=name, names=names, generator=GENERATOR)
            (folder / name).write_text(page, encoding="utf-8", errors="backslashreplace")
        if out.exists():
            remove_folder(out)
    return Written(out / PAGE, unread)


def page_name(number: int) -> str:
    """The file of the page, 0 for the first."""
    return PAGE if number == 0 else f"page-{number + 1}.html"


def _pages(gallery: Gallery, advance: Callable[[int], None]) -> Iterator[list[_Part]]:
    """The parts of each page. A page's pictures are drawn when it is asked for; advance: told of each."""
    parts: list[_Part] = []
    room, number = PER_PAGE, 0
    for section in gallery.sections:
        start = 0
        while start < len(section.pictures) or start == 0:
            if not room and section.pictures:
                yield parts
                parts, room = [], PER_PAGE
            chosen = section.pictures[start : start + room]
            items = []
            for k, draw in enumerate(chosen, start=1):
                items.append((f"{number + k:03d}.jpg", draw()))
                advance(1)
            parts.append(_Part(section, start > 0, items))
            start, number, room = start + max(1, len(chosen)), number + len(chosen), room - len(chosen)
    yield parts


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
    return environment
