"""Lines as a sheet: typed, whole, safe to open in a spreadsheet, and read back as they were."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from detector.errors import UsageError
from harness.report.export import sheets
from harness.report.export.sheets import Sheet, csv_bytes, write_parquet


def read_back(sheet: Sheet) -> list[dict[str, Any]]:
    """What docs/guide.md says of reading the CSV, done."""
    head, *rows = csv.reader(io.StringIO(csv_bytes(sheet).decode(), newline=""))
    names = [plain(name) for name in head]
    return [
        {name: value(cell, sheet.kinds[name]) for name, cell in zip(names, row, strict=True) if cell} for row in rows
    ]


def plain(cell: str) -> str:
    return str(json.loads(cell[1:])) if cell.startswith("'") else cell


def value(cell: str, kind: str) -> Any:
    readers: dict[str, Any] = {"int": int, "float": float, "bool": {"True": True, "False": False}.get, "text": plain}
    return readers.get(kind, json.loads)(cell)


def cells(lines: Sequence[dict[str, Any]]) -> list[list[str]]:
    return list(csv.reader(io.StringIO(csv_bytes(Sheet.of(lines)).decode(), newline="")))[1:]


def test_columns_have_one_type_each_and_missing_values_change_none() -> None:
    lines = [
        {"n": 3, "AP": 21.123456789012344, "ok": True, "rows": ("a/b",), "h": "e", "none": None, "APL": None},
        {"n": None, "AP": 4, "ok": None, "rows": (), "h": 3.5, "late": "x"},
    ]
    sheet = Sheet.of(lines, numbers={"APL"})
    assert sheet.kinds == {
        **{"n": "int", "AP": "float", "ok": "bool", "rows": "json", "h": "json", "none": "text", "APL": "float"},
        "late": "text",
    }
    assert csv_bytes(sheet).decode().splitlines() == [
        '"n","AP","ok","rows","h","none","APL","late"',
        '3,21.123456789012344,True,"[""a/b""]","""e""","","",""',
        '"",4.0,"","[]","3.5","","","x"',
    ]


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\r=1", "\n=1", "\uff1d1", "\uff0b1", "'x", '"x"', "", "\ufeff=1"],
)
def test_no_text_becomes_a_formula_and_each_is_read_back(text: str) -> None:
    ((cell,),) = cells([{"a": text}])
    assert cell[0] == "'"
    assert read_back(Sheet.of([{"a": text}])) == [{"a": text}]
    assert b"\t" not in csv_bytes(Sheet.of([{"a": text}]))
    head = csv_bytes(Sheet.of([{text: 1}])).decode().splitlines()[0]
    assert head.startswith("\"'")


def test_a_text_stays_in_its_quotes_where_another_character_parts_cells() -> None:
    assert csv_bytes(Sheet.of([{"a": "x;=1+1"}])) == b'"a"\n"x;=1+1"\n'


def test_what_acts_on_a_terminal_is_written_out_and_read_back() -> None:
    text = "\x1b[31mred\u202e\u0085"
    lines = [{"text": text, "list": (text, 1)}]
    assert not any(char in csv_bytes(Sheet.of(lines)).decode() for char in "\x1b\u202e\u0085")
    assert read_back(Sheet.of(lines)) == [{"text": text, "list": [text, 1]}]


TEXTS = st.text(max_size=8)
VALUES = st.one_of(
    st.none(), TEXTS, st.lists(TEXTS, max_size=3), st.floats(allow_nan=False), st.integers(), st.booleans()
)


@given(st.lists(st.dictionaries(TEXTS, VALUES, max_size=4), max_size=4))
@example([{"a": "\ud800"}])
@example([{"a": 2**70}, {"a": -1}])
@example([{"a": 2**63 + 1}])
@example([{"a": 10**400}, {"a": 0.5}])
def test_any_lines_are_read_back_to_the_last_bit(lines: list[dict[str, Any]]) -> None:
    expected = [{name: item for name, item in line.items() if item is not None} for line in lines]
    sheet = Sheet.of(lines)
    if not sheet.kinds:
        return
    found = read_back(sheet)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one == other
        assert all(type(one[name]) is type(other[name]) for name in one if sheet.kinds[name] != "float")


def test_numbers_of_statistics_libraries_are_numbers() -> None:
    import numpy as np

    assert Sheet.of([{"p": np.float64(0.25)}, {"p": 1}]).kinds == {"p": "float"}
    assert cells([{"p": np.float64(0.25)}]) == [["0.25"]]
    assert math.isnan(float(cells([{"p": math.nan}])[0][0]))


def test_parquet_without_its_library_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"Parquet needs the library pyarrow.*drloss-harness\[parquet\].*--to csv"):
        sheets.check_parquet()


def test_parquet_has_types_and_the_same_bytes_each_time() -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: Parquet was not tested")
    from pyarrow import parquet

    lines = [
        {
            "n": 3,
            "AP": 21.123456789012345,
            "ok": True,
            "rows": ("a/b",),
            "text": "=\ud800",
            "mixed": "e",
            "pairs": [{}],
        },
        {"n": None, "AP": None, "ok": None, "rows": None, "text": "", "mixed": 3.5, "APL": None},
    ]
    sheet = Sheet.of(lines, numbers={"APL"})
    files = [io.BytesIO(), io.BytesIO()]
    for file in files:
        write_parquet(sheet, file)
    assert files[0].getvalue() == files[1].getvalue()
    table = parquet.read_table(files[0])
    assert {field.name: str(field.type).replace("element", "item") for field in table.schema} == {
        **{"n": "int64", "AP": "double", "ok": "bool", "rows": "list<item: string>", "text": "string"},
        **{"mixed": "string", "pairs": "string", "APL": "double"},
    }
    assert table.to_pylist() == [
        {**lines[0], "rows": ["a/b"], "text": "=\\ud800", "mixed": '"e"', "pairs": "[{}]", "APL": None},
        {**lines[1], "mixed": "3.5", "pairs": None},
    ]
