"""Image files: their size, how their camera was held, and copies that stand upright. Free of torch.

EXIF's orientation says how a picture is to be turned before it is shown: 1 as it is stored, 6 and 8 by a quarter.
Viewers and most labelling tools obey it, detectors train on the pixels as stored. A copy that is stored upright means
the same to both.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import ImageOps
from PIL.JpegImagePlugin import get_sampling

from detector.data.images import opened, read_header, reason
from detector.errors import DataError

QUARTERS: Final = frozenset({5, 6, 7, 8})  # those that exchange width and height

XYWH = tuple[float, float, float, float]


@dataclass(frozen=True)
class Picture:
    """size: width and height of the stored pixels. orientation: EXIF's, 1 to 8."""

    size: tuple[int, int]
    orientation: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height of the picture as it is to be shown."""
        return (self.size[1], self.size[0]) if self.orientation in QUARTERS else self.size


def look(path: Path, *, decode: bool = True) -> Picture | str:
    """An image file's size and orientation, or why it cannot be read. decode: read its pixels too."""
    try:
        found = read_header(path, decode=decode)
    except (DataError, OSError) as error:
        return reason(error)
    return Picture((found.width, found.height), found.orientation)


def look_at_all(paths: Sequence[Path]) -> list[Picture | str]:
    """``look`` at each path, several at a time: decoding releases the interpreter's lock."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(look, paths))


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of the stored pixels, from the header. Raises DataError for what is no image."""
    found = look(path, decode=False)
    if isinstance(found, str):
        raise DataError(f"{path} cannot be read: {found}.")
    return found.size


def copy_picture(source: Path, target: Path, picture: Picture, *, link: bool = False) -> None:
    """Copy an image, upright. The pixels of one that is stored upright are not touched.

    link: a hard link in place of a copy where that can be. A turned JPEG is compressed again with its own tables (about
    as good as it was), all else without loss. Raises OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if picture.orientation != 1:
        _write_upright(source, target)
        return
    if link:
        try:
            os.link(os.path.realpath(source), target)
            return
        except OSError:  # another disk
            pass
    shutil.copyfile(source, target)


def _write_upright(source: Path, target: Path) -> None:
    with opened(source) as image:
        kind, options = image.format, dict[str, Any]()
        if kind in ("JPEG", "MPO"):
            tables: Any = image
            kind, options = "JPEG", {"qtables": tables.quantization, "subsampling": get_sampling(image)}
        elif kind == "WEBP":
            options = {"lossless": True}
        profile = image.info.get("icc_profile")
        upright = ImageOps.exif_transpose(image)
    if profile is not None and kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        options["icc_profile"] = profile
    for name in ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"):  # the orientation stands in each
        upright.info.pop(name, None)
    upright.getexif().clear()
    upright.save(target, format=kind, **options)


def turned_point(x: float, y: float, picture: Picture) -> tuple[float, float]:
    """Where a point of the stored pixels lies in the upright picture."""
    width, height = picture.size
    return {
        1: (x, y),
        2: (width - x, y),
        3: (width - x, height - y),
        4: (x, height - y),
        5: (y, x),
        6: (height - y, x),
        7: (height - y, width - x),
        8: (y, width - x),
    }[picture.orientation]


def turned_box(box: XYWH, picture: Picture) -> XYWH:
    """A box (x, y, width, height) of the stored pixels, in the upright picture."""
    x, y, w, h = box
    (x1, y1), (x2, y2) = turned_point(x, y, picture), turned_point(x + w, y + h, picture)
    return min(x1, x2), min(y1, y2), abs(x2 - x1), abs(y2 - y1)
