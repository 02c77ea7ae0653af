"""The one door for files: regular ones only, of a bounded size, text in UTF-8, JSON without surprises. Free of torch.

A named pipe would hang a reader, a device would fill its memory, and a decoder answers hostile bytes with a dozen kinds
of exception. Whatever is read from a disk, an archive or the network comes through here, so that every fault becomes
one error that names the file.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from detector.errors import HarnessError, RecordError
from detector.storage.retry import retry

T = TypeVar("T")

SMALL: Final = 16 * 2**20  # experiments, clusters, jobs, status
LARGE: Final = 4 * 2**30  # annotations, detections, weights
INFLATED: Final = 2**30  # of what was compressed: all detections on COCO's largest split take a quarter of it
DEPTH: Final = 100  # of lists and objects in one another
DIGITS: Final = 400  # of one number: a float has 17, and Python takes minutes over a million


@contextmanager
def open_regular(
    path: Path, *, most: int = LARGE, raises: type[HarnessError] = RecordError, retry_seconds: float = 0.0
) -> Iterator[BufferedReader]:
    """A regular file, opened for reading.

    most: bytes that it may have. raises: the error for anything else, which names the file; an OSError while the
    caller reads becomes one too. retry_seconds: how long a file server may be away.
    """
    with regular_file(path, most=most, raises=raises, retry_seconds=retry_seconds) as file:
        try:
            yield file
        except OSError as error:
            raise raises(f"{path} cannot be read: {error.strerror or error}.") from error


def regular_file(
    path: Path, *, most: int = LARGE, raises: type[HarnessError] = RecordError, retry_seconds: float = 0.0
) -> BufferedReader:
    """As ``open_regular`` for a caller that also writes: an OSError after the opening may be another file's."""
    try:
        file = retry(lambda: _opened(path), f"reading {path}", seconds=retry_seconds)
        found = os.fstat(file.fileno())
    except OSError as error:
        raise raises(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:  # a NUL in its name
        raise raises(f"{str(path)!r} cannot be read: {error}.") from error
    wrong = ""
    if not stat.S_ISREG(found.st_mode):
        wrong = f"{path} is {kind_of_file(found.st_mode)}, not a regular file."
    elif found.st_size > most:
        wrong = f"{path} has {found.st_size:,} bytes; at most {most:,} are read of such a file."
    if wrong:
        file.close()
        raise raises(wrong)
    return file


def _opened(path: Path) -> BufferedReader:
    # Opening a pipe waits for a writer, unless it is opened without waiting.
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")


def kind_of_file(mode: int) -> str:
    """What a file of this mode is, as ``os.stat`` gives it, in words."""
    kinds = (
        (stat.S_ISREG, "a regular file"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISSOCK, "a socket"),
    )
    return next((name for matches, name in kinds if matches(mode)), "a special file")


def read_bytes(
    path: Path, *, most: int = SMALL, raises: type[HarnessError] = RecordError, retry_seconds: float = 0.0
) -> bytes:
    """The bytes of a regular file; arguments and errors as for ``open_regular``."""
    with open_regular(path, most=most, raises=raises, retry_seconds=retry_seconds) as file:
        # Python takes the memory of all bytes that are asked for: not the 4 GB that a file may have.
        content = file.read(os.fstat(file.fileno()).st_size + 1)
        if grown := file.read(min(SMALL, most + 1 - len(content))) if len(content) <= most else b"":
            content += grown
    if len(content) > most:
        raise raises(f"{path} grew while it was read; at most {most:,} bytes are read of such a file.")
    return content


def first_bytes(path: Path, count: int, *, raises: type[HarnessError] = RecordError) -> bytes:
    """The first ``count`` bytes of a regular file, or all that it has; errors as for ``open_regular``."""
    with open_regular(path, raises=raises) as file:
        return file.read(count)


def read_text(path: Path, *, most: int = SMALL, raises: type[HarnessError] = RecordError) -> str:
    """The text of a regular file in UTF-8, with or without a byte order mark; errors as for ``open_regular``."""
    return decode_text(read_bytes(path, most=most, raises=raises), where=str(path), raises=raises)


def gunzip(content: bytes, *, where: str, most: int = INFLATED, raises: type[HarnessError] = RecordError) -> bytes:
    """What gzip packed, of ``most`` bytes at most: 20 MB may hold 20 GB of zeros. Raises as ``open_regular``."""
    parts, left = list[bytes](), most
    try:
        while content:
            unpacker = zlib.decompressobj(wbits=31)  # with gzip's header and checksum
            parts.append(unpacker.decompress(content, left + 1))
            left -= len(parts[-1])
            if left < 0:
                raise raises(f"{where} holds more than {most:,} bytes when it is unpacked; no more are read.")
            if not unpacker.eof:
                raise raises(f"{where} cannot be unpacked: it is cut off.")
            content = unpacker.unused_data.lstrip(b"\0")
    except zlib.error as error:
        raise raises(f"{where} cannot be unpacked: {error}.") from error
    return parts[0] if len(parts) == 1 else b"".join(parts)


def decode_text(content: bytes, *, where: str, raises: type[HarnessError] = RecordError) -> str:
    """Bytes as UTF-8, with or without a byte order mark. where: the file, for the error, which names the line."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise raises(f"{where}:{line}: byte {content[error.start]:#04x} is not UTF-8.") from error


def read_json(path: Path, kind: type[T], *, most: int = SMALL, raises: type[HarnessError] = RecordError) -> T:
    """One JSON file as ``kind``; errors as for ``open_regular`` and ``decode_json``."""
    return decode_json(read_bytes(path, most=most, raises=raises), kind, where=str(path), raises=raises)


def decode_json(
    content: bytes | str, kind: type[T], *, where: str, raises: type[HarnessError] = RecordError, unique: bool = True
) -> T:
    """JSON as ``kind``: UTF-8, finite numbers, no key twice in one object, nested ``DEPTH`` deep at most.

    where: what is read (a file, an entry of an archive), for the error. unique: whether keys written twice are looked
    for, which takes several times as long as decoding.
    """
    text = content if isinstance(content, str) else decode_text(content, where=where, raises=raises)
    try:
        if unique:
            _refuse_surprises(text)
        return msgspec.json.decode(text, type=kind)
    except RecursionError as error:
        raise raises(f"{where} is nested more than {DEPTH} deep.") from error
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        name = getattr(kind, "__name__", str(kind))
        raise raises(f"{where} cannot be read as {name}: {str(error).rstrip('.')}.") from error


def _refuse_surprises(text: str) -> None:
    """Raise ValueError for what msgspec lets pass: a key twice, very long numbers, deep nesting."""
    import json  # not above: ``harness --help`` reads none

    depth = _depth(json.loads(text, object_pairs_hook=_unique, parse_int=_number, parse_float=_number))
    if depth > DEPTH:
        raise RecursionError


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice!r} is written twice")
    return found


def _number(digits: str) -> float:
    if len(digits) > DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits; at most {DIGITS} are read")
    return 0.0  # its value is msgspec's to judge


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        inside = [v for v in level if isinstance(v, dict | list)]
        level = [v for item in inside for v in (item.values() if isinstance(item, dict) else item)]
        depth += bool(inside)
    return depth
