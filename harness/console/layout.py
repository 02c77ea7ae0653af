"""Text and tables on terminals: lines as wide as there is room for, and no word broken.

A width of None means no terminal: what is piped or written to a file is the same everywhere.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

NARROWEST = 40  # columns; below that words are broken by the terminal
GAP = 2  # columns between those of a table
_TOGETHER = "\N{NO-BREAK SPACE}"
# A command that ends a line, after a label or alone. Wrapped as words, it could not be copied.
_COMMAND = re.compile(r"(?P<before>(?:.*[:.] )?\s*)(?P<command>harness [a-z]+ [^;()]*)")


def columns(stream: TextIO | None = None) -> int | None:
    """Columns of the terminal that a stream (default: the standard output) writes to; None where it is none."""
    stream = sys.stdout if stream is None else stream
    try:
        if not stream.isatty():
            return None
        known = int(os.environ.get("COLUMNS") or 0) or os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError, AttributeError):  # closed, or without a number of its own
        known = shutil.get_terminal_size().columns
    return max(NARROWEST, known or 80)


def draws(console: Console) -> bool:
    """Whether a rich console may draw what moves: on a terminal that can, whatever FORCE_COLOR says of others."""
    return console.file.isatty() and not console.is_dumb_terminal


def text_width(width: int | None, most: int = 80) -> int:
    """The width of running text: ``most`` columns, or those of a narrower terminal."""
    return most if width is None else min(most, width)


def wrapped(text: str, width: int | None) -> str:
    """``text`` with its longer lines wrapped between words, each going on below its own indentation.

    A command at the end of a line gets lines of its own, which a shell takes as they are.
    """
    if width is None or all(len(line) <= width for line in text.split("\n")):
        return text
    return "\n".join(new for line in text.split("\n") for new in _wrapped_line(line, width))


def _wrapped_line(line: str, width: int) -> Iterator[str]:
    if len(line) <= width:
        yield line
        return
    indent = len(line) - len(line.lstrip())
    rest = " " * _hanging(line, indent, width)
    if (found := _COMMAND.fullmatch(line)) is not None:
        before, command = found["before"].rstrip(), found["command"]
        yield from _wrap(before, width, rest) if before else ()
        yield from _command_lines(command, width, rest if before else " " * indent)
    else:
        yield from _wrap(line, width, rest)


def _hanging(line: str, indent: int, width: int) -> int:
    """Where the rest of a line goes on: below the last of its columns that begins in the left half, if it has any."""
    begins = [found.end() for found in re.finditer(r"(?<=\S)\s{2,}(?=\S)", line) if found.end() <= width // 2]
    return max([min(indent + 2, width // 2), *begins])


def _wrap(text: str, width: int, rest: str) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        subsequent_indent=rest,
        expand_tabs=False,
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _command_lines(command: str, width: int, indent: str) -> list[str]:
    """A command over several lines, with a backslash before each break. Words in quotes stay whole."""
    words = re.findall(r"(?:[^\s'\"]|'[^']*'|\"[^\"]*\")+", command)
    lines = [indent + words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) + 3 <= width:
            lines[-1] += f" {word}"
        else:
            lines[-1] += " \\"
            lines.append(f"{indent}    {word}")
    return lines


def table(
    rows: Sequence[Sequence[Any]],
    heads: Sequence[str],
    width: int | None,
    *,
    narrow: tuple[Sequence[Sequence[Any]], Sequence[str]] | None = None,
    **how: Any,
) -> str:
    """A table with one line per row; where that is too wide, with wrapped cells; where it still is, row by row as text.

    how: for ``tabulate``. narrow: other rows and headings for a terminal that is too narrow for the first ones.
    """
    from tabulate import tabulate

    plain: str = tabulate(rows, heads, **how)
    if width is None or _longest(plain.split("\n")) <= width:
        return plain
    cells, widths = _fit(rows, heads, width, how, whole=True)
    if widths is None and narrow is not None:
        rows, heads = narrow
        how = {name: value for name, value in how.items() if name != "colalign"}
    if widths is None:
        cells, widths = _fit(rows, heads, width, how)
    if widths is None:
        return "\n".join(line for row in cells for line in _row_as_text(row, heads, width))
    right = _right_aligned(rows, len(heads), how)
    lines = [*_row_lines(heads, widths, right), "  ".join("-" * one for one in widths)]
    return "\n".join([*lines, *(line for row in cells for line in _row_lines(row, widths, right))])


def _cell(value: Any, how: dict[str, Any]) -> str:
    if isinstance(value, float) and "floatfmt" in how:
        return format(value, how["floatfmt"])
    return "" if value is None else str(value)


def _right_aligned(rows: Sequence[Sequence[Any]], count: int, how: dict[str, Any]) -> list[bool]:
    """By column, whether it stands right: as ``tabulate`` was told, else where all that is there are numbers."""
    if (told := how.get("colalign")) is not None:
        return [align == "right" for align in told] + [False] * (count - len(told))
    if how.get("disable_numparse"):
        return [False] * count
    given = [[row[i] for row in rows if row[i] not in (None, "")] for i in range(count)]
    return [bool(values) and all(isinstance(value, int | float) for value in values) for values in given]


def _longest(lines: Iterable[str]) -> int:
    return max(map(len, lines), default=0)


def _fit(
    rows: Sequence[Sequence[Any]], heads: Sequence[str], width: int, how: dict[str, Any], *, whole: bool = False
) -> tuple[list[list[str]], list[int] | None]:
    """The cells, and widths of columns that fit together, the widest ones narrowed first.

    whole: no cell may be wrapped, only headings. The widths are None where the longest words do not fit.
    """
    cells = [[_cell(value, how) for value in row] for row in rows]
    columns = list(zip(heads, *cells, strict=True))
    widths = [_longest(line for cell in column for line in cell.split("\n")) for column in columns]
    least = [_longest(word for cell in column for word in cell.split()) for column in columns]
    if whole:
        least = [
            max(one, _longest(line for cell in column[1:] for line in cell.split("\n")))
            for one, column in zip(least, columns, strict=True)
        ]
    room = width - GAP * (len(heads) - 1)
    if sum(least) > room:
        return cells, None
    while sum(widths) > room:
        widest = max((i for i, one in enumerate(least) if widths[i] > one), key=lambda i: widths[i])
        widths[widest] -= 1
    return cells, widths


def _row_lines(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> Iterator[str]:
    cells = [
        [new for line in cell.split("\n") for new in (_wrap(line, one, "") if len(line) > one else [line])]
        for cell, one in zip(row, widths, strict=True)
    ]
    for i in range(max(map(len, cells))):
        parts = [cell[i] if i < len(cell) else "" for cell in cells]
        padded = (p.rjust(w) if r else p.ljust(w) for p, w, r in zip(parts, widths, right, strict=True))
        yield "  ".join(padded).rstrip()


def _row_as_text(row: Sequence[str], heads: Sequence[str], width: int) -> Iterator[str]:
    """The first cell, and below it each other one after its heading."""
    yield from _wrap(" ".join(row[0].split()), width, "    ") or ["-"]
    pairs = [f"{head} {' '.join(cell.split())}".strip() for head, cell in zip(heads[1:], row[1:], strict=True) if cell]
    whole = (pair.replace(" ", _TOGETHER) if len(pair) <= width // 3 else pair for pair in pairs)
    yield from (line.replace(_TOGETHER, " ") for line in _wrap("  " + "; ".join(whole), width, "    "))
