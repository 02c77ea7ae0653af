"""How wide a line of text is in Computer Modern, from the metrics of its letters; an estimate that errs to the wide."""

from __future__ import annotations

import re
from typing import Final

# Points at 10 pt, by width. TeX's own fonts are wider than most that a paper is set in.
_LETTERS: Final = {
    2.78: "il.,:;!'|",
    3.06: "fj",
    3.33: "- ",
    3.61: "I",
    3.94: "rst()[]`",
    4.44: "cez",
    5.0: "ago0123456789/?",
    5.28: "kqvxyJ",
    5.56: "bdhnpuS",
    6.53: "FLZ",
    6.81: "EP",
    7.22: "BCTRw",
    7.5: "AHNUVXY_#$",
    7.85: "DGKOQ+=<>±~^&",
    8.33: "m%",
    9.17: "M",
    10.28: "W@",
}
_WIDTHS: Final = {char: points for points, chars in _LETTERS.items() for char in chars}
_OTHER: Final = 8.0
_NUMBER_OF_SIGN: Final = 45.0  # [U+4E2D]
# A smaller size of these fonts is less than proportionally narrower.
SIZES: Final = {"small": 0.94, "footnotesize": 0.87, "scriptsize": 0.82}
BOLD: Final = 1.16
# Points: the narrower of the columns and pages of an article and of a conference's style.
PAGE: Final = {"column": 229.0, "page": 469.0}


def width(text: str, size: str = "small") -> float:
    """Points of one line."""
    return SIZES[size] * sum(_of(char) for char in text)


def longest_word(text: str, size: str) -> float:
    """Points of the longest part that TeX does not break: between spaces, and after hyphens."""
    return max((width(word, size) for word in _words(text)), default=0.0)


def num_lines(text: str, size: str, points: float) -> int:
    """On how many lines a paragraph of that width stands."""
    lines, used = 1, 0.0
    for word in _words(text):
        if used and used + width(word.rstrip(), size) > points:
            lines, used = lines + 1, 0.0
        used += width(word, size)
    return lines


def _words(text: str) -> list[str]:
    """The parts of a text, each with the hyphen or the spaces that end it."""
    return re.findall(r"[^\s-]+(?:-|\s*)|-|\s+", text)


def _of(char: str) -> float:
    if char in _WIDTHS:
        return _WIDTHS[char]
    return _OTHER if char.isascii() or (char.isalpha() and ord(char) < 0x400) else _NUMBER_OF_SIGN
