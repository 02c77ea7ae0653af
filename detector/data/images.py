"""The one decoder of image files: for training, evaluation, checks, copies and ``harness detect``. Free of torch.

Only the formats that COCO-like sets have are opened. Pillow knows some forty, one of which starts Ghostscript.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from detector.data.coco.index import CocoIndex
from detector.errors import DataError
from detector.storage.reading import open_regular
from detector.storage.retry import retry

FORMATS: Final = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})
MOST_PIXELS: Final = 2**27  # takes 0.5 GB decoded; a file of some kilobytes can promise any number
MOST_BYTES: Final = 2**30
LARGE_PIXELS: Final = 2**24  # 64 MB decoded
_LARGE_LOCK: Final = Lock()
# Pillow warns from half of its limit on, which is a camera's size by now. Ours is checked before pixels are decoded.
Image.MAX_IMAGE_PIXELS = MOST_PIXELS

NO_IMAGE: Final = f"not an image ({', '.join(FORMATS)} are read)"
_DEEP = "it holds 32 bits per channel; convert it to 8 or 16 bits first"


@dataclass(frozen=True)
class Header:
    """What a file says of its image. orientation: as EXIF numbers them, 1 (upright) to 8."""

    width: int
    height: int
    orientation: int


def open_image(index: CocoIndex, position: int) -> Image.Image:
    """Decode one image as RGB, as stored: not turned by its EXIF orientation, as in the base codebase.

    Raises DataError naming the file where it is missing, broken or of another size.
    """
    path = index.image_path(position)
    named = f"{path} (image id {index.image_ids[position]})"
    try:
        decoded = retry(lambda: _decode(path), f"reading {path}")
    except (OSError, DataError) as error:
        raise DataError(f"{named} cannot be read: {reason(error)}. Run 'harness data verify {index.root}'.") from error
    if decoded.size != (index.widths[position], index.heights[position]):
        raise DataError(
            f"{named} is {decoded.width}x{decoded.height} pixels; its annotation "
            f"says {index.widths[position]}x{index.heights[position]}. Run 'harness data verify {index.root}'."
        )
    return decoded


def read_image(path: Path, *, upright: bool = False) -> Image.Image:
    """An image file of any mode as RGB. upright: turned as its EXIF orientation says.

    Raises DataError for a file that is no image, is too large, or holds more than 16 bits per channel.
    """
    try:
        return retry(lambda: _decode(path, upright=upright), f"reading {path}")
    except (OSError, DataError) as error:
        raise DataError(f"{path} is not an image that can be read: {reason(error)}.") from error


def read_header(path: Path, *, decode: bool) -> Header:
    """Size and orientation of an image file. decode: also see that its pixels can be read.

    Raises DataError, without the file's name, where they cannot, and OSError where there is no such file.
    """
    with opened(path) as image:
        if decode:
            with _one_large(image):
                image.load()
        return Header(*image.size, _orientation(image, decoded=decode))


def reason(error: OSError | DataError) -> str:
    """Why an image cannot be read, without the file's name."""
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def as_rgb(image: Image.Image, *, deep: bool = False) -> Image.Image:
    """An image of any mode in 8 bits per channel; of 16 bits of grey the upper 8.

    deep: the mode is one of 32 bits, the content of 16. Raises DataError for 32 bits, integers or floats: what is white
    in them only their maker knows.
    """
    if image.mode in ("I", "F") and not deep:
        raise DataError(_DEEP)
    if image.mode.startswith("I"):  # Pillow itself would clip: all above 255 white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours; Pillow warns on the direct way
    return image if image.mode == "RGB" else image.convert("RGB")


def _decode(path: Path, *, upright: bool = False) -> Image.Image:
    with opened(path) as image:
        image.load()
        return as_rgb(ImageOps.exif_transpose(image) if upright else image, deep=_is_16_bit(image))


def _one_large(image: Image.Image) -> AbstractContextManager[object]:
    """While decoding: of large images, one at a time in all threads together."""
    return _LARGE_LOCK if image.width * image.height > LARGE_PIXELS else nullcontext()


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Pillow's image, whose header is read. Raises as ``read_header``, also for what happens while it is used."""
    try:
        with (
            open_regular(path, most=MOST_BYTES, raises=DataError) as file,
            _faults(),
            Image.open(file, formats=FORMATS) as image,
        ):
            if image.width * image.height > MOST_PIXELS:
                raise DataError(_too_large(image.width * image.height))
            if image.mode in ("I", "F") and not _is_16_bit(image):
                raise DataError(_DEEP)
            yield image
    except DataError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno is not None:
            raise cause from None  # storage, which is tried again
        raise DataError(str(error).removeprefix(f"{path} ").removesuffix(".")) from cause


@contextmanager
def _faults() -> Iterator[None]:
    """Whatever a decoder makes of a broken file (a dozen kinds of exception) as DataError."""
    try:
        yield
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(NO_IMAGE) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(_too_large()) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"broken image: {str(error).rstrip('.') or type(error).__name__}") from error


def _too_large(pixels: int | None = None) -> str:
    found = "" if pixels is None else f"{pixels:,} pixels; "
    return f"the image is too large: {found}at most {MOST_PIXELS:,} pixels are read"


def _is_16_bit(image: Image.Image) -> bool:
    """Whether Pillow gives an image of 16 bits as one of 32: a PGM, and by older versions a PNG."""
    return image.format in ("PNG", "PPM") and image.mode == "I"


def _orientation(image: Image.Image, *, decoded: bool) -> int:
    """1 where there is none, or none that can be read. Of a TIFF, Pillow itself turns the pixels."""
    if image.format == "TIFF" or (image.format == "PNG" and not decoded and "exif" not in image.info):
        return 1
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # of broken EXIF data
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1
