"""A table of the page before it is HTML: cells with what they are sorted by, where they lead and how they look."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

# How a verdict looks: its colour and, for those who see none, its sign.
TONES: Final[dict[str, str]] = {
    "supported": "good",
    "reproduced": "good",
    "consistent": "fair",
    "contradicted": "bad",
    "not reproduced": "bad",
    "undecided": "open",
    "inconclusive": "open",
    "not decidable here": "none",
    "pending": "none",
}
DASH: Final = "\N{EN DASH}"  # where there is no number
SIGNS: Final[dict[str, str]] = {"good": "✓", "fair": "≈", "bad": "✗", "open": "?", "none": DASH}
# What the page's script reads as a number.
_NUMBER = re.compile(r"\(?[+-]?[0-9]+(\.[0-9]+)?\)?( ±[0-9.]+)?( \(n [0-9]+\))?")


@dataclass(frozen=True)
class Cell:
    """text: as it is shown. order: what a column of numbers is sorted by; None: by the text.

    href: an anchor of this page, "" for none. tone: of a verdict (``TONES``), "" for none.
    """

    text: str
    order: float | None = None
    href: str = ""
    tone: str = ""

    @property
    def key(self) -> str:
        """What the column is sorted by; "" where the text begins with that very number."""
        return "" if self.order is None or _NUMBER.fullmatch(self.text) else f"{self.order:.6g}"

    @property
    def sign(self) -> str:
        """The verdict's sign, read aloud by nobody: the words stand beside it."""
        return SIGNS.get(self.tone, "")


@dataclass(frozen=True)
class Line:
    """One row: its first cell is the row's heading. section: a line to stand before it."""

    cells: tuple[Cell, ...]
    section: str = ""


@dataclass(frozen=True)
class Grid:
    """A table. ``spans`` group neighbouring columns (their widths add up to the columns; may be empty).

    ``words``: columns of words; the others are numbers, aligned to the right. ``notes`` stand below.
    """

    caption: str
    headings: tuple[str, ...]
    lines: tuple[Line, ...]
    words: frozenset[int] = frozenset({0})
    spans: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()


def anchor(*parts: str) -> str:
    """An id that only these parts have: letters and digits stay, all that HTML or an address reads is written out."""
    return ":".join(quote(part, safe="/").replace("%", "~") for part in parts)


def words_grid(caption: str, headings: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> Grid:
    """A table of words alone."""
    lines = tuple(Line(tuple(Cell(text) for text in row)) for row in rows)
    return Grid(caption, tuple(headings), lines, frozenset(range(len(headings))), notes=tuple(notes))


def number(value: float | None, digits: int = 1, *, href: str = "", signed: bool = False) -> Cell:
    """A number, or a dash where there is none."""
    if value is None:
        return Cell(DASH)
    return Cell(f"{value:+z.{digits}f}" if signed else f"{value:.{digits}f}", value, href)
