"""Files that appear whole or not at all: written beside their place, then renamed or linked to it. Free of torch."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from detector.storage.outputs import holds_file
from detector.storage.staging import staging_name

_NUMBER = rb"(?:-?\d[\d.eE+-]*|null)"
_LONG_LIST = re.compile(rb"\[\s+(?:" + _NUMBER + rb",\s+){31,}" + _NUMBER + rb"\s+\]")
_BETWEEN = re.compile(rb",\s+")
_EDGE = re.compile(rb"(?<=\[)\s+|\s+(?=\])")


def write_atomic(path: Path, content: bytes | Callable[[BinaryIO], object], *, flush: bool = True) -> None:
    """Write a whole file or nothing; a regular file that is there already is replaced.

    Whether it may be is the caller's to ask (``outputs.claim_file``). Raises UsageError for anything else that is
    there: a folder, a link, a device. content: bytes, or a function that writes them to an open file. flush: whether to
    wait until the disk has them; without it, the file may be empty after a power failure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    holds_file(path)
    temporary = staging_name(path)
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
    except OSError as error:
        if error.filename is None:  # a full disk, which the system tells without a name
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any, *, flush: bool = True) -> None:
    """Write a struct or plain data as indented JSON with sorted keys, as ``write_atomic`` does.

    A long list of numbers, such as a curve, takes one line: indented, it would be mostly spaces.
    """
    content = msgspec.json.format(msgspec.json.encode(value, order="sorted"), indent=2) + b"\n"
    content = _LONG_LIST.sub(lambda found: _BETWEEN.sub(b", ", _EDGE.sub(b"", found[0])), content)
    write_atomic(path, content, flush=flush)


def write_once(path: Path, value: Any) -> bool:
    """Write JSON as ``write_json`` does, but never replace a file: False where there is one already.

    Of several processes that do this at once, on one machine or over NFS, exactly one gets True: a hard link is made
    by one process only.
    """
    temporary = staging_name(path)
    write_json(temporary, value)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True
