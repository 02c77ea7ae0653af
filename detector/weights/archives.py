"""What ``torch.save`` writes, read without ``torch.load``, which trusts the sizes that a file states and no checksum.

Since PyTorch 1.6: a zip archive of a pickle and of one member per storage, none compressed. Before: five pickles, then
the storages. A tensor is made only of a storage that holds all of it, and no memory is taken beyond the file's size.
"""

from __future__ import annotations

import math
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO, Final

import torch
from torch import Tensor

from detector.weights.pickles import Call, PlainReader, RefusedGlobalError, is_shape, plain

ZIP: Final = b"PK\x03\x04"
MAGIC: Final = 0x1950A86A20F9469CFC6C  # what torch.save wrote first before PyTorch 1.6, pickled
LEGACY: Final = pickle.dumps(MAGIC, protocol=2)
_CHUNK: Final = 2**24
_MOST_DIRECTORY: Final = 2**24  # bytes of a zip's list of members: some 200,000 of them
_STORAGES: Final = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# Torch's own, harmless, and of no use for a detector.
_OTHER_TENSORS: Final = ("Complex", "QInt", "QUInt", "_rebuild_qtensor", "_rebuild_sparse", "_rebuild_nested")


@dataclass(frozen=True, eq=False)
class _Storage:
    """Bytes of a file, [nbytes] uint8, and the kind of number that they are."""

    content: Tensor
    dtype: torch.dtype


def read_archive(stream: BinaryIO, size: int) -> Any:
    """What the zip archive holds; the checksum of every member is verified. size: of the file, in bytes.

    Raises RefusedGlobalError for what is neither a tensor nor plain data; for a damaged file BadZipFile,
    UnpicklingError, EOFError, ValueError and half a dozen more.
    """
    _check_directory(stream, size)
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        _check_members(members, size)
        content = {member.filename: _content(archive, member) for member in members}
    pickles = [name for name in content if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise zipfile.BadZipFile("a zip archive that torch.save did not write")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in content:
        raise zipfile.BadZipFile("a TorchScript program, not tensors alone")
    order = content.get(f"{folder}byteorder")
    if order is not None and order.numpy().tobytes() != b"little":
        raise zipfile.BadZipFile("its numbers are not in the byte order of this machine")
    program = content[pickles[0]].numpy().tobytes()

    def storage(key: str, nbytes: int) -> Tensor:
        found = content.get(f"{folder}data/{key}")
        if found is None or len(found) < nbytes:
            raise pickle.UnpicklingError(f"a storage of {nbytes:,} bytes that the file does not hold")
        return found[:nbytes]

    return plain(_TensorReader(BytesIO(program), size, storage).load())


def _check_directory(stream: BinaryIO, size: int) -> None:
    """Raise BadZipFile where the list of members is long; Python holds all of it in memory before it shows any."""
    stream.seek(max(0, size - 98))
    tail = stream.read(98).rjust(98)
    if tail[-22:-18] != b"PK\x05\x06":
        raise zipfile.BadZipFile("cut off, or not as torch.save ends its files")
    length = int.from_bytes(tail[-10:-6], "little")
    if tail[-42:-38] == b"PK\x06\x07" and tail[:4] == b"PK\x06\x06":
        length = int.from_bytes(tail[40:48], "little")
    if length > _MOST_DIRECTORY:
        raise zipfile.BadZipFile(f"{length:,} bytes of names")
    stream.seek(0)


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    """Raise BadZipFile for what ``torch.save`` never writes, and what would grow or be read twice."""
    for member in members:
        if member.flag_bits & 1:
            raise zipfile.BadZipFile(f"{member.filename:.80} is encrypted")
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise zipfile.BadZipFile(f"{member.filename:.80} is compressed; torch.save writes members as they are")
    if len({member.filename for member in members}) < len(members):
        raise zipfile.BadZipFile("a member is there twice")
    if sum(member.file_size for member in members) > size:
        raise zipfile.BadZipFile("its members together are larger than the file")


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Tensor:
    """A member's bytes, [nbytes] uint8. Raises BadZipFile where they are not those of its checksum."""
    content = torch.empty(member.file_size, dtype=torch.uint8)
    with archive.open(member) as part:
        _fill(content, part)
        part.read(1)  # past the end, where zipfile compares the checksum of an empty member too
    return content


def _fill(content: Tensor, part: Any) -> None:
    view, at = memoryview(content.numpy().data), 0
    while at < len(view):
        chunk = part.read(min(_CHUNK, len(view) - at))
        if not chunk:
            raise EOFError("cut off")
        view[at : at + len(chunk)] = chunk
        at += len(chunk)


def read_legacy(stream: BinaryIO, size: int) -> Any:
    """What a file of PyTorch before 1.6 holds. size: of it, in bytes. Raises as ``read_archive``."""
    storages: dict[str, Tensor] = {}
    left = size

    def storage(key: str, nbytes: int) -> Tensor:
        nonlocal left
        if key not in storages:
            left -= nbytes
            if left < 0:
                raise pickle.UnpicklingError(f"a storage of {nbytes:,} bytes that the file does not hold")
            storages[key] = torch.zeros(nbytes, dtype=torch.uint8)  # its bytes come last
        if len(storages[key]) != nbytes:
            raise pickle.UnpicklingError("a storage of two sizes")
        return storages[key]

    def read() -> Any:
        return plain(reader.load())

    reader = _TensorReader(stream, size, storage)
    magic, _, system = read(), read(), read()
    if magic != MAGIC or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise pickle.UnpicklingError("not as torch.save begins its files")
    found, keys = read(), read()
    if not isinstance(keys, list) or any(type(key) is not str for key in keys) or set(keys) != set(storages):
        raise pickle.UnpicklingError("it lists other storages than it uses")
    itemsizes = reader.itemsizes
    for key in dict.fromkeys(keys):
        (count,) = struct.unpack("<q", stream.read(8))
        if count * itemsizes[key] != len(storages[key]):
            raise pickle.UnpicklingError("a storage of another length than its tensors'")
        _fill(storages[key], stream)
    return found


class _TensorReader(PlainReader):
    """With torch's tensors of real numbers. storage: gives the bytes of a key, of which there must be so many."""

    def __init__(self, stream: BinaryIO, size: int, storage: Callable[[str, int], Tensor]) -> None:
        names: dict[tuple[str, str], Any] = {
            ("torch._utils", "_rebuild_tensor_v2"): Call(_tensor),
            ("torch._utils", "_rebuild_parameter"): Call(_parameter),
            ("torch", "Size"): Call(_size),
            ("torch", "device"): Call(_device),
            **{("torch", name): dtype for name, dtype in _STORAGES.items()},
            **{("torch", str(dtype).removeprefix("torch.")): str(dtype) for dtype in _STORAGES.values()},
        }
        super().__init__(stream, size, names)
        self.names[("collections", "Counter")] = self.names[("collections", "OrderedDict")]  # of a schedule
        self.storage = storage
        self.itemsizes: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        """As for plain data; other tensors are called by their name."""
        if module.startswith("torch") and name.startswith(_OTHER_TENSORS):
            raise pickle.UnpicklingError(f"complex, quantised or sparse tensors ({name:.40}), which are not read")
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> _Storage:
        """A storage by its key, as ``torch.save`` names it."""
        kind, dtype, key, _, count, *view = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or type(key) is not str or any(view):
            raise pickle.UnpicklingError("a storage of an unknown kind")
        if not is_shape((count,)):
            raise pickle.UnpicklingError("a storage without a length")
        if self.itemsizes.setdefault(key, dtype.itemsize) != dtype.itemsize:
            raise pickle.UnpicklingError("a storage of two kinds of numbers")
        return _Storage(self.storage(key, count * dtype.itemsize), dtype)


def _tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *_: Any) -> Tensor:
    """The part of a storage that a tensor is. A tensor larger than its storage repeats it, and is refused."""
    if not isinstance(storage, _Storage) or not is_shape(shape) or not is_shape((offset, *strides)):
        raise pickle.UnpicklingError("a tensor of shape, kind or content that is none")
    if len(shape) != len(strides):
        raise pickle.UnpicklingError(f"a tensor of shape {shape} with {len(strides)} strides")
    numbers, held = math.prod(shape), len(storage.content) // storage.dtype.itemsize
    end = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True)) + 1
    if numbers > held or (numbers and end > held) or offset > held:
        raise pickle.UnpicklingError(f"a tensor of shape {shape} in a storage of {held:,} numbers")
    if not numbers and max(shape) > 2**20:
        raise pickle.UnpicklingError(f"an empty tensor of shape {shape}")
    whole = torch.empty(0, dtype=storage.dtype)
    return whole.set_(storage.content.untyped_storage(), offset, shape, strides)


def _parameter(value: Any, *_: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise RefusedGlobalError("torch.nn.Parameter")
    return value


def _size(sides: Any = ()) -> tuple[int, ...]:
    if not isinstance(sides, (tuple, list)) or not is_shape(tuple(sides)):
        raise pickle.UnpicklingError("a size that is none")
    return tuple(sides)


def _device(name: Any, *_: Any) -> str:
    return str(name) if isinstance(name, str) else "cpu"
