"""What the image files of a split hold, as sums: so that images replaced under their old names are noticed.

All files are looked at, each time; their content is read once, and again only where size, times or inode of one of them
have changed since. Free of torch.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from detector.data.coco.cache import LEAST_BYTES, SETTLED_SECONDS, Stamp, cache_folder, stamp_of
from detector.data.coco.index import CocoIndex
from detector.data.images import MOST_BYTES as MOST_IMAGE_BYTES
from detector.data.images import read_image
from detector.errors import DataError, RecordError
from detector.runs.provenance import ImagesDigest
from detector.storage.files import write_json
from detector.storage.reading import open_regular, read_json
from detector.storage.retry import retry

logger = logging.getLogger(__name__)

MOST_BYTES = 10**9  # of all files together, up to which their content is read
FORMAT = 2  # of the cache: increased when the same content gets another sum
LOOKS_AT_ONCE = 16  # a file server answers one after the other in a minute what it answers together in seconds
MISSING = -1  # as a size: images without boxes need not be there for a training


@dataclass(frozen=True)
class _File:
    name: str
    path: Path
    stamp: Stamp | None  # None: it is missing

    @property
    def size(self) -> int:
        return MISSING if self.stamp is None else self.stamp[0]


def images_digest(index: CocoIndex) -> ImagesDigest:
    """Of all images of ``index``. Raises OSError where storage stays unavailable."""
    return retry(lambda: _digest(index), f"looking at the images of {index.split}")


def _digest(index: CocoIndex) -> ImagesDigest:
    folder = index.root / index.image_folder
    names = sorted(index.file_names)
    with ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
        stamps = pool.map(_stamp, (folder / name for name in names))
        files = [_File(name, folder / name, stamp) for name, stamp in zip(names, stamps, strict=True)]
    total = sum(max(0, file.size) for file in files)
    return ImagesDigest(
        images=len(files),
        bytes=total,
        names_and_sizes=_sum(f"{file.name} {file.size}" for file in files),
        content=_content(files, total) if total <= MOST_BYTES else None,
    )


def _stamp(path: Path) -> Stamp | None:
    try:
        return stamp_of(path)
    except FileNotFoundError:
        return None


def _content(files: list[_File], total: int) -> str:
    """The sum of all files' content, from the cache where no file has changed."""
    looked = _sum(f"{file.path.resolve()} {file.stamp}" for file in files)
    folder = cache_folder()
    note = folder / "images" / f"{looked}-v{FORMAT}.json" if folder is not None and total >= LEAST_BYTES else None
    if note is not None and (known := _noted(note)) is not None:
        return known
    newest = max((max(file.stamp[1:3]) for file in files if file.stamp is not None), default=0) / 1e9
    settled = time.time() - newest > SETTLED_SECONDS
    with ThreadPoolExecutor() as pool:  # hashing and decoding leave Python to the others
        sums = list(pool.map(_content_of, files))
    found = _sum(f"{file.name} {content}" for file, content in zip(files, sums, strict=True))
    if note is not None and settled:
        try:
            write_json(note, found)
        except OSError as error:
            logger.info("the sum of the images is not kept: %s", error)
    return found


def _noted(note: Path) -> str | None:
    try:
        return read_json(note, str)
    except RecordError:
        return None


def _content_of(file: _File) -> str:
    """sha256 of a file's bytes, or of a PNG's pixels: its bytes depend on the library that wrote it."""
    if file.stamp is None:
        return "missing"
    if file.path.suffix.lower() == ".png":
        try:
            pixels = read_image(file.path)
            return hashlib.sha256(f"{pixels.width} {pixels.height} ".encode() + pixels.tobytes()).hexdigest()
        except DataError:
            pass  # whoever needs its pixels says what is wrong
    with open_regular(file.path, most=MOST_IMAGE_BYTES, raises=DataError) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sum(lines: Iterable[str]) -> str:
    """sha256 of the lines."""
    total = hashlib.sha256()
    for line in lines:
        total.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return total.hexdigest()
