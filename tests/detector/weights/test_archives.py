"""torch's files: what torch.save writes comes back to the bit; what lies about sizes or sums is refused."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detector.errors import WeightsError
from detector.weights import archives
from detector.weights.archives import LEGACY, read_archive, read_legacy
from detector.weights.content import read_content
from tests.detector.weights.programs import FLOATS, archive_of, legacy_of, tensor, torch_bytes


def refusal(path: Path, data: bytes) -> str:
    """What ``read_content`` says to a file of these bytes."""
    path.write_bytes(data)
    with pytest.raises(WeightsError) as caught:
        read_content(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 700
    return message


@pytest.mark.parametrize("legacy", [False, True])
def test_what_torch_writes_comes_back_in_kind_shape_strides_and_bits(legacy: bool, tmp_path: Path) -> None:
    numbers = torch.arange(24.0).reshape(2, 3, 4)
    shared = torch.arange(10)
    value = {
        "plain": numbers,
        "turned": numbers.permute(2, 0, 1),
        "part": (shared[2:5], shared[4:]),
        "half": numbers.half(),
        "brain": torch.ones(3, dtype=torch.bfloat16),
        "bool": numbers > 3,
        "byte": torch.get_rng_state()[:7],
        "one": torch.tensor(2.5),
        "none": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "rest": [1, -5, 2**70, 1.5, "text", b"bytes", None, True, {1, 2}, (1, (2,)), 1j, torch.Size([2, 3])],
    }
    path = tmp_path / "m.pt"
    path.write_bytes(torch_bytes(value, legacy=legacy))
    expected = torch.load(path, weights_only=True)

    found, _ = read_content(path)

    assert list(found) == list(expected)
    assert found["rest"] == expected["rest"]
    pairs = [(found[name], expected[name]) for name in value if isinstance(expected[name], torch.Tensor)]
    pairs += zip(found["part"], expected["part"], strict=True)
    for ours, theirs in pairs:
        assert ours.dtype == theirs.dtype
        assert ours.stride() == theirs.stride()
        assert torch.equal(ours, theirs)
    assert found["part"][0].untyped_storage().data_ptr() == found["part"][1].untyped_storage().data_ptr()


def test_one_changed_bit_of_any_tensor_is_found(tmp_path: Path) -> None:
    """torch.load itself looks at no checksum."""
    content = bytearray(torch_bytes({"w": torch.arange(1000.0), "v": torch.ones(8)}))
    content[content.index(torch.arange(1000.0).numpy().tobytes()) + 2000] ^= 1
    assert torch.load(io.BytesIO(content), weights_only=True)["w"].shape == (1000,)

    assert "is damaged or no weights file (Bad CRC-32" in refusal(tmp_path / "m.pt", bytes(content))


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    content = torch_bytes({"w": torch.arange(50.0)})
    for length in range(1, len(content), 37):
        refusal(tmp_path / "m.pt", content[:length])


def rezipped(**changes: Any) -> bytes:
    """A good archive written again: compressed, with a member twice, without its pickle, ..."""
    out, method = io.BytesIO(), changes.get("method", zipfile.ZIP_STORED)
    with zipfile.ZipFile(io.BytesIO(torch_bytes({"w": torch.zeros(5000)}))) as good, zipfile.ZipFile(out, "w") as bad:
        for name in good.namelist():
            if not name.endswith(changes.get("without", "/nothing")):
                bad.writestr(name, changes.get("contents", {}).get(name.split("/")[-1], good.read(name)), method)
        for name in changes.get("more", ()):
            bad.writestr(name, b"x")
    return out.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_member_is_refused_before_it_is_read(method: int, tmp_path: Path) -> None:
    assert "is compressed" in refusal(tmp_path / "m.pt", rezipped(method=method))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"more": ["archive/data/0"]}, "a member is there twice"),
        ({"without": "data.pkl"}, "a zip archive that torch.save did not write"),
        ({"more": ["other/data.pkl"]}, "a zip archive that torch.save did not write"),
        ({"more": ["archive/constants.pkl"]}, "a TorchScript program"),
        ({"contents": {"byteorder": b"big"}}, "byte order"),
        ({"without": "data/0"}, "a storage of 20,000 bytes that the file does not hold"),
        ({"contents": {"0": b"short"}}, "a storage of 20,000 bytes that the file does not hold"),
        ({"contents": {"data.pkl": b""}}, "EOFError"),
    ],
)
def test_archives_that_torch_never_writes_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert message in refusal(tmp_path / "m.pt", rezipped(**changes))


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    content = bytearray(torch_bytes({"w": torch.zeros(3)}))
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1  # flag of the first entry of the directory
    assert "is encrypted" in refusal(tmp_path / "m.pt", bytes(content))


def test_members_that_lie_over_each_other_are_refused(tmp_path: Path) -> None:
    """Each entry of the list may point to the same bytes: a small file of a thousand large members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", bytes(100_000))
        for i in range(50):
            member = zipfile.ZipInfo(f"archive/data/{i}")
            member.header_offset, member.file_size, member.compress_size = 0, 100_000, 100_000
            member.CRC = archive.filelist[0].CRC
            archive.filelist.append(member)
        archive._didModify = True  # type: ignore[attr-defined]
    assert "its members together are larger than the file" in refusal(tmp_path / "m.pt", out.getvalue())


def test_a_zip_with_a_huge_list_of_members_is_refused_before_python_reads_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(archives, "_MOST_DIRECTORY", 1000)
    data = rezipped(more=[f"archive/data/{i}" for i in range(1, 100)])
    assert "bytes of names" in refusal(tmp_path / "m.pt", data)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(2, dtype=torch.complex64), "ComplexFloatStorage"),
        (torch.zeros(2, 2).to_sparse(), "_rebuild_sparse_tensor"),
        (torch.zeros(1).expand(1000, 1000), r"a tensor of shape (1000, 1000) in a storage of 1 numbers"),
    ],
    ids=["complex", "sparse", "expanded"],
)
def test_tensors_that_no_detector_has_are_named(value: torch.Tensor, message: str, tmp_path: Path) -> None:
    assert message in refusal(tmp_path / "m.pt", torch_bytes({"w": value}))


SIZES = [
    ((2**40,), (0,), 0, "in a storage of 4 numbers"),
    ((2, 2), (0, 0), 0, None),
    ((5,), (1,), 0, "in a storage of 4 numbers"),
    ((4,), (1,), 1, "in a storage of 4 numbers"),
    ((2,), (7,), 0, "in a storage of 4 numbers"),
    ((-1,), (1,), 0, "a tensor of shape, kind or content that is none"),
    ((2,), (-1,), 1, "a tensor of shape, kind or content that is none"),
    ((2,), (1,), -1, "a tensor of shape, kind or content that is none"),
    ((2**62, 2**62), (1, 1), 0, "a tensor of shape, kind or content that is none"),
    ((2**40, 0), (1, 1), 0, "an empty tensor of shape"),
    ((1,) * 40, (1,) * 40, 0, "a tensor of shape, kind or content that is none"),
    ((2,), (1, 1), 0, "with 2 strides"),
]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("shape", "strides", "offset", "message"), SIZES)
def test_a_tensor_is_made_only_of_a_storage_that_holds_it(
    shape: tuple[int, ...], strides: tuple[int, ...], offset: int, message: str | None, legacy: bool, tmp_path: Path
) -> None:
    program = tensor(shape, strides, offset)
    data = (legacy_of if legacy else archive_of)(program, FLOATS)
    if message is None:
        (tmp_path / "m.pt").write_bytes(data)
        assert read_content(tmp_path / "m.pt")[0]["w"].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    else:
        assert message in refusal(tmp_path / "m.pt", data)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("count", [5, 2**33, 2**60, -1])
def test_a_storage_is_never_larger_than_its_bytes(count: int, legacy: bool, tmp_path: Path) -> None:
    """torch.load believes the count: it reads foreign memory, or takes it before it looks for the bytes."""
    data = (legacy_of if legacy else archive_of)(tensor((4,), (1,), 0, count=count), FLOATS)
    message = refusal(tmp_path / "m.pt", data)
    assert "a storage " in message or "cut off" in message


def test_a_legacy_storage_of_another_length_than_its_tensors_is_refused() -> None:
    data = bytearray(legacy_of(tensor((4,), (1,), 0), FLOATS))
    at = data.index(struct.pack("<q", 4) + FLOATS)
    data[at : at + 8] = struct.pack("<q", 2**40)
    with pytest.raises(Exception, match="of another length than its tensors"):
        read_legacy(io.BytesIO(data), len(data))
    assert bytes(data).startswith(LEGACY)


def test_memory_is_the_files_size_and_no_more(tmp_path: Path) -> None:
    """Views of one storage share it, however many they are."""
    numbers = torch.arange(1000.0)
    data = torch_bytes({str(i): numbers[i:] for i in range(300)})
    found = read_archive(io.BytesIO(data), len(data))
    assert len({value.untyped_storage().data_ptr() for value in found.values()}) == 1
    assert found["7"][0] == 7


@pytest.mark.parametrize("kind", ["pipe", "device", "link in a circle"])
def test_what_is_no_regular_file_is_named_and_not_opened(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    else:
        path.symlink_to(path)
    with pytest.raises(WeightsError, match=r"(a named pipe|a device), not a regular file|There is no weights file"):
        read_content(path)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x00\x00\x00\x00\x00\x00\x00" + b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,99999999]}}',
        b"\xff" * 8 + b"{}",
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }",
    ],
    ids=["safetensors", "safetensors with an endless header", "npy"],
)
def test_formats_that_are_not_read_are_refused_in_one_sentence(data: bytes, tmp_path: Path) -> None:
    assert "is damaged or no weights file" in refusal(tmp_path / "m.safetensors", data)


def test_an_npz_is_refused_in_one_sentence(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.savez(stream, a=np.zeros(3))
    assert "a zip archive that torch.save did not write" in refusal(tmp_path / "m.npz", stream.getvalue())
