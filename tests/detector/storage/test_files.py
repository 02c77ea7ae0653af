"""Files that appear whole or not at all, or once: what is written, what stays after an error, who wins."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import BinaryIO

import pytest

from detector.errors import UsageError
from detector.storage.files import write_atomic, write_json, write_once
from detector.storage.reading import read_json

NUM_WRITERS = 8


def test_write_atomic_replaces_the_file_and_leaves_no_other(tmp_path: Path) -> None:
    write_atomic(tmp_path / "new" / "file", b"1")
    write_atomic(tmp_path / "new" / "file", b"22")
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "new").iterdir()] == [("file", b"22")]


def test_write_atomic_keeps_the_old_file_where_the_writer_fails(tmp_path: Path) -> None:
    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise ValueError("broken")

    write_atomic(tmp_path / "file", b"old")
    with pytest.raises(ValueError, match="broken"):
        write_atomic(tmp_path / "file", fail)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_write_once_lets_one_of_several_writers_win(tmp_path: Path) -> None:
    barrier = Barrier(NUM_WRITERS)

    def write(number: int) -> bool:
        barrier.wait()
        return write_once(tmp_path / "file", number)

    with ThreadPoolExecutor(NUM_WRITERS) as pool:
        won = list(pool.map(write, range(NUM_WRITERS)))
    assert won.count(True) == 1
    assert read_json(tmp_path / "file", int) == won.index(True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_long_list_of_numbers_takes_one_line(tmp_path: Path) -> None:
    value = {"curve": [1, -2.5e-7, None, *range(100)], "few": [1, 2, 3], "names": ["[1, 2]"] * 40}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == value
    assert '  "curve": [1, -2.5e-7, null, 0, 1, 2, ' in text
    assert '  "few": [\n    1,\n    2,\n    3\n  ],\n' in text
    assert text.count("\n") == 1 + 1 + 5 + 42 + 1


@pytest.mark.parametrize("what", ["a link", "a named pipe", "a folder"])
def test_write_atomic_replaces_nothing_but_files(tmp_path: Path, what: str) -> None:
    target = tmp_path / "out"
    make = {"a link": lambda: target.symlink_to("elsewhere"), "a named pipe": lambda: os.mkfifo(target)}
    make.get(what, target.mkdir)()
    with pytest.raises(UsageError, match=f"out is {what} and is not replaced"):
        write_atomic(target, b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_write_atomic_does_not_rename_over_a_device() -> None:
    with pytest.raises(UsageError, match="/dev/null is a device and is not replaced"):
        write_atomic(Path("/dev/null"), b"content")
    assert Path("/dev/null").is_char_device()
