"""A cache of large annotation files: their sha256 and their content as numpy columns. Free of torch.

It lies in a folder of the user's. Columns are found by the file's sha256, so that a copy on a node's own disk shares
those of the original. The folder may be deleted at any time: where it is missing, broken or full, the annotations are
read instead.

    images/{sha256 of all stamps}.json    the sha256 of a split's images (``data.digest``)
    files/{sha256 of the path}.json       size, times and inode of a file when it was hashed, and its sha256
    columns/{kind}-{sha256}-v{FORMAT}/    one .npy per column, and columns.json with the type and checksum of each
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
import zlib
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from detector.errors import RecordError
from detector.storage.files import write_json
from detector.storage.reading import read_json
from detector.storage.staging import remove_abandoned, remove_folder, staged_folder

logger = logging.getLogger(__name__)

FOLDER_VARIABLE = "HARNESS_CACHE"
# Increased when the columns of the same content change: another field, another type, another rule of the reader.
FORMAT = 1
LEAST_BYTES = 4 * 2**20  # smaller files are not cached: they are read in 20 ms
# A file may change twice within the resolution of its times, so times younger than this do not show a change.
SETTLED_SECONDS = 2.0
ABANDONED_SECONDS = 24 * 3600.0
PAGE = 4096

Columns = dict[str, NDArray[np.generic]]
Stamp = tuple[int, int, int, int]


class Content(Struct, frozen=True):
    """A file's sha256. stamp: shows later whether the file has changed; None if it is too young to show that."""

    sha256: str
    stamp: Stamp | None


class _Column(Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    checksum: int


def cache_folder() -> Path | None:
    """``$HARNESS_CACHE``, else ``drloss-harness`` in ``$XDG_CACHE_HOME``, else in ``~/.cache``; None without a home.

    It is not beside the data, which on a cluster is often read-only or belongs to others. COCO 2017 takes 70 MB. Where
    the home folder is too small or slow, ``$HARNESS_CACHE`` can name a folder that the nodes see.
    """
    if given := os.environ.get(FOLDER_VARIABLE):
        return Path(given).absolute()
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "drloss-harness"
    except RuntimeError:  # a user without a home
        return None


def content_of(path: Path) -> Content | None:
    """The sha256 of a file. It is hashed again only if its size, times or inode have changed.

    None for a file that is missing or too small for the cache. Raises OSError where it cannot be read.
    """
    if not path.is_file() or path.stat().st_size < LEAST_BYTES:
        return None
    note = _note(path)
    stamp = stamp_of(path)
    if (known := _noted(note)) is not None and known.stamp == stamp:
        return known
    settled = _is_settled(stamp)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if not settled or stamp != stamp_of(path):
        return Content(sha256, None)
    content = Content(sha256, stamp)
    if note is not None:
        try:
            write_json(note, content)
        except OSError as error:
            _tell_once(f"{note.parent} cannot cache what was read: {error.strerror or error}")
    return content


def open_columns(sha256: str, kind: str, names: Collection[str], *, check: bool = True) -> Columns | None:
    """The cached columns of a file, mapped into memory: processes share them, and unread pages cost nothing.

    None where one is missing or broken. check: also verify the checksums. This reads every page, in some milliseconds,
    and leaves them in memory, so that they are still there if the file server goes away later.
    """
    folder = _columns_folder(sha256, kind)
    if folder is None or not folder.is_dir():
        return None
    try:
        written = read_json(folder / "columns.json", dict[str, _Column])
        # As plain arrays: an np.memmap is 3.6 times slower to index.
        columns = {name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in names}
        for name, column in columns.items():
            expected = written.get(name)
            if expected is None or (column.dtype.str, column.shape) != (expected.dtype, expected.shape):
                raise ValueError(f"{name}.npy is not the array that was written")
            if check and _checksum(column) != expected.checksum:
                raise ValueError(f"{name}.npy has changed")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (RecordError, OSError, ValueError, EOFError) as error:
        _tell_once(f"{folder} is broken and is not used: {error}")
        return None
    return columns


def store_columns(path: Path, content: Content, kind: str, columns: Mapping[str, NDArray[np.generic]]) -> None:
    """Cache the columns that were read from ``path``, unless the file may have changed since it was hashed.

    Of several processes that do this at once, one wins. A folder that cannot be written to is logged once.
    """
    folder = _columns_folder(content.sha256, kind)
    if folder is None or content.stamp is None:
        return
    try:
        if content.stamp != stamp_of(path):
            return
        remove_abandoned(folder.parent, older_than=ABANDONED_SECONDS)
        with staged_folder(folder) as staging:
            _write(columns, staging)
            if folder.exists() and open_columns(content.sha256, kind, columns) is None:
                remove_folder(folder)  # it is broken
    except OSError as error:
        if open_columns(content.sha256, kind, columns) is None:  # else another process was faster
            _tell_once(f"{folder.parent} cannot cache what was read: {error.strerror or error}")


def _write(columns: Mapping[str, NDArray[np.generic]], folder: Path) -> None:
    described = {}
    for name, values in columns.items():
        column = np.ascontiguousarray(values)
        described[name] = _Column(column.dtype.str, column.shape, _checksum(column))
        np.save(folder / f"{name}.npy", column, allow_pickle=False)
    write_json(folder / "columns.json", described)
    for path in folder.iterdir():  # after all are written: the first flush writes most of the others too
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def _columns_folder(sha256: str, kind: str) -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / "columns" / f"{kind}-{sha256}-v{FORMAT}"


def _note(path: Path) -> Path | None:
    folder = cache_folder()
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
    return None if folder is None else folder / "files" / f"{name}.json"


def _noted(note: Path | None) -> Content | None:
    try:
        return None if note is None else read_json(note, Content)
    except RecordError:
        return None


def stamp_of(path: Path) -> Stamp:
    """Size, times and inode, of which every change of a file changes one: no program can set the ctime back.

    The device is left out: its number differs between machines that share a file system.
    """
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _is_settled(stamp: Stamp) -> bool:
    return time.time() - max(stamp[1:3]) / 1e9 > SETTLED_SECONDS


def _checksum(column: NDArray[np.generic]) -> int:
    """The CRC of the sums of each page's words: as fast as memory, and it notices pages that changed places."""
    content = column.reshape(-1).view(np.uint8)
    whole = len(content) - len(content) % PAGE
    sums = content[:whole].view(np.uint64).reshape(-1, PAGE // 8).sum(axis=1)
    return zlib.crc32(content[whole:].tobytes(), zlib.crc32(sums.tobytes()))


@cache
def _tell_once(message: str) -> None:
    logger.warning("%s", message)
