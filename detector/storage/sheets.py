"""Tables as CSV that spreadsheets open: no cell is calculated, no control character acts."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from detector.storage.shown import one_line

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # also of full width
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def csv_text(lines: Sequence[Mapping[str, Any]]) -> str:
    """Lines under the union of their keys, in order of appearance; without the last line's end."""
    sheet = io.StringIO()
    names = list(dict.fromkeys(key for line in lines for key in line))
    writer = csv.DictWriter(sheet, [no_formula(name) for name in names], lineterminator="\n")
    writer.writeheader()
    writer.writerows({no_formula(key): no_formula(value) for key, value in line.items()} for line in lines)
    return sheet.getvalue().rstrip("\n")


def no_formula(value: Any) -> Any:
    """Text that a spreadsheet would calculate gets an apostrophe before it; numbers, also as text, stay numbers."""
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if value.lstrip(" ")[:1] in _FORMULA and not _NUMBER.fullmatch(value) else text
