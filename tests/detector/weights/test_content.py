"""Files by their content: what is a weights file, what is not, and what would run code."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detector.errors import WeightsError
from detector.weights.content import read_content


def torch_bytes(value: Any, *, legacy: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", ["model.pth", "model.pkl", "model"])
def test_read_content_goes_by_content_not_by_name(legacy: bool, name: str, tmp_path: Path) -> None:
    data = torch_bytes({"a": torch.arange(3)}, legacy=legacy)
    (tmp_path / name).write_bytes(data)

    content, sha256 = read_content(tmp_path / name)

    assert content["a"].tolist() == [0, 1, 2]
    assert sha256 == hashlib.sha256(data).hexdigest()


def test_read_content_reads_a_pickle_under_any_name(tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(pickle.dumps({"a": np.arange(3)}))

    assert read_content(tmp_path / "model.pth")[0]["a"].tolist() == [0, 1, 2]


class Attempt:
    """Runs a shell command where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_read_content_runs_nothing_and_names_what_it_refuses(kind: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    value = {"model": {"a": torch.zeros(1)} if kind != "pickle" else {}, "extra": Attempt(marker)}
    path = tmp_path / "weights"
    path.write_bytes(pickle.dumps(value) if kind == "pickle" else torch_bytes(value, legacy=kind == "legacy"))

    with pytest.raises(WeightsError, match=r"weights is refused: it asks for posix\.system.*Nothing of it was run"):
        read_content(path)
    assert not marker.exists()


def test_read_content_refuses_a_torch_file_whose_pickle_was_replaced(tmp_path: Path) -> None:
    """A checkpoint's archive with another program in it: the tensors' storages stay as they are."""
    marker, path = tmp_path / "ran", tmp_path / "weights.pth"
    with zipfile.ZipFile(io.BytesIO(torch_bytes({"a": torch.zeros(4)}))) as good, zipfile.ZipFile(path, "w") as bad:
        for entry in good.namelist():
            data = pickle.dumps(Attempt(marker), protocol=2) if entry.endswith("data.pkl") else good.read(entry)
            bad.writestr(entry, data)

    with pytest.raises(WeightsError, match=r"posix\.system"):
        read_content(path)
    assert not marker.exists()


def test_read_content_refuses_objects_among_tensors(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(torch_bytes({"a": torch.nn.Linear(1, 1)}))

    with pytest.raises(WeightsError, match=r"asks for torch\.nn\.modules\.linear\.Linear"):
        read_content(path)


def test_read_content_names_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"is a folder, not a weights file.*\.pth"):
        read_content(tmp_path)
    with pytest.raises(WeightsError, match=r"There is no weights file .*gone\.pth"):
        read_content(tmp_path / "gone.pth")
    (tmp_path / "empty.pth").touch()
    with pytest.raises(WeightsError, match=r"empty\.pth is empty"):
        read_content(tmp_path / "empty.pth")


def jpeg() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG")
    return stream.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        jpeg(),
        b"# Notes\nThis is a text file.\n",
        b'{"model": {}}',
        b"PK\x03\x04 cut off",
        b"\x80\x04\x95",
        b"hello",
        b"\x00" * 100,
        torch_bytes({"a": torch.zeros(1000)})[:2000],
        torch_bytes({"a": torch.zeros(1000)}, legacy=True)[:2000],
        pickle.dumps({"a": np.zeros(1000)})[:2000],
    ],
    ids=["jpeg", "text", "json", "zip", "pickle", "word", "zeros", "cut torch", "cut legacy torch", "cut pickle"],
)
def test_read_content_refuses_damaged_and_other_files(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.pth").write_bytes(data)

    with pytest.raises(
        WeightsError, match=r"bad\.pth is damaged or no weights file \(.+\)\. Expected .*\.pkl"
    ) as caught:
        read_content(tmp_path / "bad.pth")
    assert "\n" not in str(caught.value)
