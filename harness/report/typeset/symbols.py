"""Text as LaTeX prints it: the paper's symbols as mathematics, everything else as the text that it is."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from typing import Final

from detector.storage.shown import shown

_GREEK: Final = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lamda mu nu xi pi rho sigma tau phi chi psi omega"
)
_ESCAPED: Final = {
    "\\": r"\textbackslash{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",
    "±": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{MINUS SIGN}": "$-$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "§": r"\S{}",
    "\N{EN DASH}": "--",
    "\N{EM DASH}": "---",
    "…": r"\ldots{}",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "\N{NO-BREAK SPACE}": "~",
    **{
        unicodedata.lookup(f"GREEK SMALL LETTER {name.upper()}"): f"$\\{name.replace('lamda', 'lambda')}$"
        for name in _GREEK.split()
    },
}
# TeX hyphenates no word of more than 63 letters: in a longer one we say where it may break.
_LONG_WORD: Final = re.compile(r"\w{60,}")
_PIECE: Final = 10  # letters
# Control characters, which no shown text has, stand for what is not a character: nothing, a place to break.
_MARKS: Final = {"\0": "{}", "\1": r"\-"}
_ACCENTS: Final = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
}
# The paper's own symbols, in the words of our tables: lambda+, h-, L = 6, AP50.
_SYMBOL: Final = re.compile(
    r"\b(?P<name>lambda|h)(?P<sign>[+-])(?![\w+-])"
    r"|(?P<letter>\bL|\N{GREEK SMALL LETTER RHO}) = (?P<value>\d[\d.]*\d|\d)(?![\w.]*\w)"
    r"|\bAP(?P<sub>50|75|S|M|L)\b"
)


def latex_text(text: str) -> str:
    """Text for LaTeX without packages: nothing in it is a command, an argument or a ligature of dashes.

    A bracket or a star at the start would be read as an argument of the row's end before it. What pdfLaTeX has no sign
    for is written by its number, such as [U+4E2D].
    """
    text = shown(text)
    guard = "{}" if text.startswith(("[", "*")) else ""
    parts, end = [], 0
    for found in _SYMBOL.finditer(text):
        parts += [_plain(text[end : found.start()]), _symbol(found)]
        end = found.end()
    return guard + "".join([*parts, _plain(text[end:])])


def latex_cell(text: str) -> str:
    """The same for a cell, where a lone e is Euler's number."""
    return "$e$" if text == "e" else latex_text(text)


def _symbol(found: re.Match[str]) -> str:
    if found["name"]:
        letter = r"\lambda" if found["name"] == "lambda" else "h"
        return f"${letter}_{{{found['sign']}}}$"
    if found["letter"]:
        letter = "L" if found["letter"] == "L" else r"\rho"
        return f"${letter} = {found['value']}$"
    sub = found["sub"] if found["sub"].isdigit() else f"\\mathrm{{{found['sub']}}}"
    return f"AP$_{{{sub}}}$"


def _plain(text: str) -> str:
    # A pair of hyphens, commas or quotation marks is another sign in TeX's fonts.
    text = re.sub(r"([-,'`?!])(?=[-,'`])", "\\1\0", text)
    text = _LONG_WORD.sub(lambda found: "\1".join(textwrap.wrap(found[0], _PIECE)), text)
    return "".join(_MARKS[char] if char in _MARKS else _character(char) for char in text)


def _character(char: str) -> str:
    if char in _ESCAPED:
        return _ESCAPED[char]
    if char.isascii():
        return char
    parts = unicodedata.normalize("NFD", char)
    if len(parts) == 2 and parts[0].isascii() and parts[0].isalpha() and parts[1] in _ACCENTS:
        return f"\\{_ACCENTS[parts[1]]}{{{parts[0]}}}"
    return f"{{}}[U+{ord(char):04X}]"
