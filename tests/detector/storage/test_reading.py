"""The door for files: what is refused, in one sentence that names the file."""

from __future__ import annotations

import gzip
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from detector.errors import DataError, RecordError
from detector.evaluation.detections import read_detections
from detector.evaluation.matches import read_matches
from detector.storage.reading import decode_json, gunzip, read_bytes, read_json, read_text, regular_file


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    found = {
        tmp_path / "pipe": "is a named pipe, not a regular file",
        tmp_path: "cannot be read: Is a directory",
        Path("/dev/zero"): "is a device, not a regular file",
        tmp_path / "loop": "cannot be read: Too many levels of symbolic links",
        tmp_path / "gone": "cannot be read: No such file or directory",
    }
    for path, why in found.items():
        with pytest.raises(RecordError, match=f"^{path} {why}"):
            read_bytes(path)
    with pytest.raises(DataError, match="cannot be read: embedded null byte"):
        regular_file(Path("a\0b"), raises=DataError)


def test_a_file_without_a_mode_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "status.json"
    path.write_text("{}")
    path.chmod(stat.S_IWUSR)
    monkeypatch.setattr(os, "open", denied)  # root may read it all the same
    with pytest.raises(RecordError, match=f"^{path} cannot be read: Permission denied"):
        read_json(path, dict)


def test_size_depth_digits_and_doubled_keys_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(10 * 2**40)
    with pytest.raises(RecordError, match=r"has 10,995,116,277,760 bytes; at most"):
        read_text(path)
    for content, why in {
        "[" * 101 + "]" * 101: "more than 100 deep",
        "[" * 100_000: "more than 100 deep",
        '{"a": 1, "a": 2}': "key 'a' is written twice",
        "1" * 401: "a number of 401 digits",
        "[1e999]": "cannot be read",
        "[NaN]": "cannot be read",
        "\ud800": "cannot be read",
    }.items():
        with pytest.raises(RecordError, match=why):
            decode_json(content, object, where="it")


def test_what_unpacks_to_more_than_is_read_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(b"[" + b" " * 10_000_000 + b"]")
    assert gunzip(packed, where="it") == gzip.decompress(packed)
    assert gunzip(packed + packed, where="it") == gzip.decompress(packed + packed)
    with pytest.raises(RecordError, match=r"it holds more than 1,000,000 bytes when it is unpacked"):
        gunzip(packed, where="it", most=1_000_000)
    for damaged in (packed[:-1], packed[:20], packed[:-6] + b"\0" + packed[-5:], b"no gzip"):
        with pytest.raises(RecordError, match="it cannot be unpacked"):
            gunzip(damaged, where="it")


def test_detections_and_matches_that_are_something_else_are_named(tmp_path: Path) -> None:
    for name in ("detections.json", "detections.json.gz", "matches.npz"):
        os.mkfifo(tmp_path / name)
        read = read_matches if name.endswith("npz") else read_detections
        with pytest.raises(DataError, match=rf"{name} .*is a named pipe"):
            read(tmp_path / name)
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(b"[]")[:-4])
    with pytest.raises(DataError, match="cut off"):
        read_detections(tmp_path / "cut.json.gz")
    (tmp_path / "deep.json").write_bytes(b"[" * 100_000)
    with pytest.raises(DataError, match=r"deep.json is not a COCO result list"):
        read_detections(tmp_path / "deep.json")


def test_matches_that_would_fill_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detector.evaluation.matches.INFLATED", 2**20)
    path = tmp_path / "matches.npz"
    np.savez_compressed(path, image_ids=np.zeros(2**20, np.int64))
    with pytest.raises(DataError, match=r"it holds 8,3\d\d,\d\d\d bytes when it is unpacked; at most 1,048,576"):
        read_matches(path)


def test_no_more_memory_is_taken_than_a_file_has_bytes(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"12345")
    assert read_bytes(tmp_path / "small", most=2**60) == b"12345"  # nobody has so much


def test_a_file_that_grows_while_it_is_read_is_read_up_to_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log").write_bytes(b"12345")
    found = os.stat(tmp_path / "log")
    smaller = os.stat_result((*found[:6], 2, *found[7:]))
    monkeypatch.setattr(os, "fstat", lambda number: smaller)
    assert read_bytes(tmp_path / "log", most=5) == b"12345"
    with pytest.raises(RecordError, match="log grew while it was read; at most 4 bytes"):
        read_bytes(tmp_path / "log", most=4)
