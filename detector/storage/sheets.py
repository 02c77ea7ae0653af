"""Lines of values as CSV that spreadsheets open: no cell is calculated, no control character acts."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from detector.storage.shown import one_line

# What a spreadsheet would calculate, also in full width and behind blanks.
_FORMULA: Final = re.compile("[\\s\ufeff]*[=+\\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def csv_text(lines: Sequence[Mapping[str, Any]]) -> str:
    """Lines under the union of their keys, in order of appearance; without the last line's end."""
    names = list(dict.fromkeys(key for line in lines for key in line))
    rows = ([no_formula(line.get(name, "")) for name in names] for line in lines)
    return csv_rows([[no_formula(name) for name in names], *rows]).rstrip("\n")


def csv_rows(rows: Iterable[Sequence[Any]], *, quote_texts: bool = False) -> str:
    """Cells as they are. quote_texts: each text in quotation marks, which tells ``"1"`` from ``1``."""
    sheet = io.StringIO()
    if quote_texts:
        csv.writer(sheet, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerows(rows)
    else:
        csv.writer(sheet, lineterminator="\n").writerows(rows)
    return sheet.getvalue()


def no_formula(value: Any) -> Any:
    """Text that a spreadsheet would calculate gets an apostrophe before it; numbers, also as text, stay numbers."""
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if is_formula(value) and not _NUMBER.fullmatch(value) else text


def is_formula(text: str) -> bool:
    """Whether a spreadsheet may take the text for more than a text."""
    return _FORMULA.match(text) is not None
