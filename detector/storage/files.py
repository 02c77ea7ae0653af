"""Files that are whole or not there at all: write, flush, rename. Free of torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec
from msgspec import Struct

from detector.errors import RecordError

T = TypeVar("T")


def write_atomic(path: Path, content: bytes | Callable[[BinaryIO], object], *, flush: bool = True) -> None:
    """Write a whole file or nothing: to a temporary file beside it, flushed to the disk, then renamed.

    content: or what writes it. flush=False, for what is soon written again: after a loss of power it may be empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any, *, flush: bool = True) -> None:
    """Write a struct or plain data as indented JSON with sorted keys, as ``write_atomic`` does."""
    content = msgspec.json.format(msgspec.json.encode(value, order="sorted"), indent=2) + b"\n"
    write_atomic(path, content, flush=flush)


def read_json(path: Path, kind: type[T]) -> T:
    """Read one JSON file into ``kind``. Raises RecordError naming the file and what is wrong in it."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.DecodeError, OSError) as error:
        raise RecordError(f"{path} cannot be read as {kind.__name__}: {error}. Move it away and run again.") from error


def write_once(path: Path, value: Struct, token: str) -> bool:
    """The file appears whole or not at all, and only once: False where it is there (a hard link, also over NFS)."""
    prepared = path.with_name(f".{path.name}.{token}.{os.getpid()}")
    write_json(prepared, value)
    try:
        os.link(prepared, path)
    except FileExistsError:
        return False
    finally:
        prepared.unlink(missing_ok=True)
    return True
