"""Lines of plain values as one sheet: CSV or Parquet, whole and unrounded, with the same bytes for the same lines."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from detector.errors import UsageError
from detector.storage.sheets import csv_rows, is_formula
from detector.storage.shown import one_line, shown

Line = Mapping[str, Any]
# "json": lists, and columns whose values are of several kinds.
Kind = Literal["bool", "int", "float", "text", "json"]
_INT64 = 2**63


@dataclass(frozen=True)
class Sheet:
    """Columns in the order in which they first appear, each of one kind; a line without a column has None there."""

    kinds: Mapping[str, Kind]
    lines: Sequence[Line]

    @classmethod
    def of(cls, lines: Sequence[Line], *, numbers: Collection[str] = ()) -> Sheet:
        """A sheet of lines. numbers: columns that are numbers also where no line has one."""
        columns: dict[str, list[Any]] = {}
        for line in lines:
            for name, value in line.items():
                columns.setdefault(name, []).append(value)
        return cls({name: _kind(values, name in numbers) for name, values in columns.items()}, lines)


def _kind(values: Iterable[Any], number: bool = False) -> Kind:
    """The kind of a column's values. Without any value it is a float where it is a ``number``, else text."""
    present = [value for value in values if value is not None]
    found = {_type(value) for value in present}
    if found == {bool}:
        return "bool"
    if found == {int} and all(-_INT64 <= value < _INT64 for value in present):
        return "int"
    if found and found <= {int, float} and all(map(_is_double, present)):
        return "float"
    if not found:
        return "float" if number else "text"
    return "text" if found == {str} else "json"


def _is_double(value: float) -> bool:
    """Whether a float has this number to the last digit, as it does not have every integer above 2 to the 53."""
    try:
        return value != value or float(value) == value
    except OverflowError:
        return False


def _type(value: Any) -> type:
    """Its plain type; numpy's floats, which statistics give, are floats."""
    return next((kind for kind in (bool, int, float, str) if isinstance(value, kind)), object)


def csv_bytes(sheet: Sheet) -> bytes:
    """CSV in UTF-8: an empty cell is None, numbers have all their digits, texts are in quotes, lists are JSON.

    A cell of text that begins with an apostrophe has a text as JSON behind it: so is written what a spreadsheet would
    calculate, what would act on a terminal, what begins with a quote or an apostrophe, and an empty text. All else is
    as it is, so that every value can be read back.
    """
    rows = ([_cell(line.get(name), kind) for name, kind in sheet.kinds.items()] for line in sheet.lines)
    return csv_rows([[_text(name) for name in sheet.kinds], *rows], quote_texts=True).encode()


def _cell(value: Any, kind: Kind) -> str | float:
    if value is None:
        return ""
    if kind == "text":
        return _text(value)
    if kind == "json":
        return _json(value)
    return float(value) if kind == "float" else value


def _text(text: str) -> str:
    marked = is_formula(text) or text.lstrip().startswith(("'", '"'))
    if text and one_line(text) == text and not marked:
        return text
    return f"'{_json(text)}"


def _json(value: Any) -> str:
    """On one line; what would act on a terminal is escaped."""
    return shown(json.dumps(value, ensure_ascii=False))


def write_parquet(sheet: Sheet, file: Any) -> None:
    """Parquet with a type for each column; lists of one kind stay lists, other nested values are JSON.

    Raises UsageError where pyarrow is not installed.
    """
    pyarrow, parquet = _pyarrow()
    columns = {name: [line.get(name) for line in sheet.lines] for name in sheet.kinds}
    arrays = {name: _array(pyarrow, columns[name], kind) for name, kind in sheet.kinds.items()}
    parquet.write_table(pyarrow.table(arrays), file, compression="zstd", store_schema=False)


def check_parquet() -> None:
    """Raises UsageError where pyarrow is not installed."""
    _pyarrow()


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(
            "Parquet needs the library pyarrow, which is not installed. Install it: pip install 'drloss-harness"
            "[parquet]', or '.[parquet]' in a checkout. Or give --to csv."
        ) from error
    return pyarrow, pyarrow.parquet


def _array(pyarrow: Any, values: list[Any], kind: Kind) -> Any:
    types = {"bool": pyarrow.bool_(), "int": pyarrow.int64(), "float": pyarrow.float64(), "text": pyarrow.string()}
    if kind == "text":
        return pyarrow.array([None if value is None else _storable(value) for value in values], pyarrow.string())
    if kind != "json":
        return pyarrow.array(values, types[kind])
    if all(value is None or isinstance(value, list | tuple) for value in values):
        inner = _kind([item for value in values for item in value or ()])
        if inner != "json":
            return pyarrow.array(values, pyarrow.list_(types[inner]))
    return pyarrow.array([None if value is None else _json(value) for value in values], pyarrow.string())


def _storable(text: str) -> str:
    """UTF-8 has no halves of surrogate pairs; they are written out."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
