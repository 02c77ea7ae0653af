"""Weight files put together by hand: pickles as programs, and torch's two layouts around them."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import zipfile
from typing import Any

import torch

FLOATS = bytes(16)  # four zeros, as float32
PROTOCOL = b"\x80\x02"


def torch_bytes(value: Any, *, legacy: bool = False) -> bytes:
    """What torch.save writes."""
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def named(module: str, name: str) -> bytes:
    """The instruction that looks a name up."""
    return f"c{module}\n{name}\n".encode()


def plain(value: Any) -> bytes:
    """The instructions that build ``value``, without the pickle's beginning and end."""
    return pickle.dumps(value, protocol=2)[2:-1]


def tensor(shape: tuple[int, ...], strides: tuple[int, ...], offset: int, *, count: int = 4) -> bytes:
    """A program for {"w": a float32 tensor of storage "0", which is said to hold ``count`` numbers}."""
    storage = (
        b"(" + plain("storage") + named("torch", "FloatStorage") + plain("0") + plain("cpu") + plain(count) + b"tQ"
    )
    arguments = b"(" + storage + plain(offset) + plain(shape) + plain(strides) + b"\x89}t"
    return PROTOCOL + b"}" + plain("w") + named("torch._utils", "_rebuild_tensor_v2") + arguments + b"Rs."


def archive_of(program: bytes, storage: bytes = FLOATS) -> bytes:
    """The zip archive of torch.save with this pickle and one storage."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in (("data.pkl", program), ("byteorder", b"little"), ("data/0", storage), ("version", b"3")):
            archive.writestr(f"archive/{name}", content)
    return out.getvalue()


def legacy_of(program: bytes, storage: bytes = FLOATS) -> bytes:
    """The file of PyTorch before 1.6 with this pickle and one storage. Its persistent ids have one part more."""
    system = {"protocol_version": 1001, "little_endian": sys.byteorder == "little", "type_sizes": {}}
    heads = [pickle.dumps(value, protocol=2) for value in (0x1950A86A20F9469CFC6C, 1001, system)]
    body = program.replace(b"tQ", b"NtQ")
    keys = pickle.dumps(["0"], protocol=2)
    return b"".join([*heads, body, keys, struct.pack("<q", len(storage) // 4), storage])
