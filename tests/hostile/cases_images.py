"""Image files: each is checked by ``data verify`` and decoded as training does, which agree."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from detector.data.coco.index import load_index
from detector.data.images import open_image
from tests.hostile.case import Case, Expected, either, noted, right, told
from tests.hostile.coco import HEIGHT, TRAIN, WIDTH, content, picture, write_root
from tests.hostile.files import SPECIAL, dangling
from tests.hostile.invariant import Action, command

AREA: Final = "images"
SIZE: Final = (WIDTH, HEIGHT)


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _slope(most: int, kind: type) -> Image.Image:
    """Of 0 to ``most`` from the left to the right."""
    row = np.linspace(0, most, WIDTH).astype(kind)
    return Image.fromarray(np.tile(row, (HEIGHT, 1)))


def _turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _saved(Image.new("RGB", SIZE, "red"), "JPEG", exif=exif)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(width: int, height: int, rows: bytes, *, before: bytes = b"") -> bytes:
    """A grey PNG that claims a size. rows: its compressed pixels."""
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + before + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _wrong_sum() -> bytes:
    """A PNG with one bit of its pixels flipped."""
    found = bytearray(picture("PNG"))
    found[found.index(b"IDAT") + 10] ^= 1
    return bytes(found)


def _near(*corners: int) -> Callable[[Image.Image], bool]:
    """RGB of the picture's size, with these levels at the left and the right edge, up to rounding."""

    def judge(image: Image.Image) -> bool:
        pixels = np.asarray(image).astype(int)
        edges = (pixels[20, 0, 0], pixels[20, -1, 0])
        return (
            image.size == SIZE
            and image.mode == "RGB"
            and all(abs(a - b) <= 3 for a, b in zip(edges, corners, strict=True))
        )

    return judge


def _rgb(image: Image.Image) -> bool:
    return image.size == SIZE and image.mode == "RGB"


_ROWS: Final = zlib.compress(bytes((WIDTH + 1) * HEIGHT))
GOOD: tuple[tuple[str, bytes, Callable[[Image.Image], bool]], ...] = (
    ("JPEG", picture(), _rgb),
    ("JPEG in grey", picture("JPEG", "L"), _rgb),
    ("JPEG in CMYK", picture("JPEG", "CMYK"), _rgb),
    ("JPEG, progressive", _saved(_slope(255, np.uint8), "JPEG", progressive=True), _near(0, 255)),
    ("PNG", picture("PNG"), _rgb),
    ("PNG in grey", _saved(_slope(255, np.uint8), "PNG"), _near(0, 255)),
    ("PNG in black and white", picture("PNG", "1"), _rgb),
    ("PNG with a palette", picture("PNG", "P"), _rgb),
    ("PNG with transparency", picture("PNG", "RGBA"), _rgb),
    ("PNG in grey with transparency", picture("PNG", "LA"), _rgb),
    ("PNG of 16 bits", _saved(_slope(65535, np.uint16), "PNG"), _near(0, 255)),
    ("PNG of 16 bits, dark", _saved(_slope(32767, np.uint16), "PNG"), _near(0, 127)),
    ("TIFF of 16 bits or refused", _saved(_slope(65535, np.uint16), "TIFF"), _near(0, 255)),
)
REFUSED: tuple[tuple[str, bytes, tuple[str, ...]], ...] = (
    ("an empty file", b"", ("1.jpg",)),
    ("text", b"not an image", ("1.jpg",)),
    ("HTML", b"<!DOCTYPE html><html>404</html>", ("1.jpg",)),
    ("SVG", b'<svg xmlns="http://www.w3.org/2000/svg" width="48" height="40"/>', ("1.jpg",)),
    ("PDF", b"%PDF-1.4\n", ("1.jpg",)),
    ("JPEG cut in the middle", picture()[: len(picture()) // 2], ("1.jpg",)),
    ("JPEG cut after its head", picture()[:160], ("1.jpg",)),
    ("PNG cut in the middle", picture("PNG")[: len(picture("PNG")) // 2], ("1.jpg",)),
    ("PNG with a wrong sum", _wrong_sum(), ("1.jpg",)),
    ("PNG without pixels", _png(WIDTH, HEIGHT, b""), ("1.jpg",)),
    ("PNG with pixels that do not decompress", _png(WIDTH, HEIGHT, b"\x00" * 50), ("1.jpg",)),
    ("PNG of 0 x 0", _png(0, 0, _ROWS), ("1.jpg",)),
    ("PNG of 2^31 - 1 x 1", _png(2**31 - 1, 1, _ROWS), ("1.jpg",)),
    ("another size", picture(size=(40, 48)), ("40 x 48",)),
    ("integers of 32 bits", _saved(_slope(70000, np.int32), "TIFF"), ("32",)),
    ("floats", _saved(_slope(1, np.float32), "TIFF"), ("32",)),
    ("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 40\n%%EndComments\nshowpage\n", ("1.jpg",)),
    ("EPS", _saved(Image.new("RGB", SIZE), "EPS"), ("1.jpg",)),
    ("PSD", b"8BPS\x00\x01" + bytes(6) + struct.pack(">HIIHH", 3, HEIGHT, WIDTH, 8, 3) + bytes(200), ("1.jpg",)),
    ("ICO", _saved(Image.new("RGB", SIZE), "ICO"), ("1.jpg",)),
    ("PCX", _saved(Image.new("RGB", SIZE), "PCX"), ("1.jpg",)),
    ("TGA", _saved(Image.new("RGB", SIZE), "TGA"), ("1.jpg",)),
    ("SGI", _saved(Image.new("RGB", SIZE), "SGI"), ("1.jpg",)),
    ("PDF that Pillow wrote", _saved(Image.new("RGB", SIZE), "PDF"), ("1.jpg",)),
)
# The formats of some sets; each reader may take them or refuse them, but all alike.
ODD: tuple[tuple[str, bytes], ...] = (
    ("GIF", picture("GIF", "P")),
    ("PNG with too few rows, which Pillow fills up", _png(WIDTH, HEIGHT, zlib.compress(bytes(49)))),
    ("BMP", picture("BMP")),
    ("TIFF", picture("TIFF")),
    ("WebP", picture("WEBP")),
    ("PPM", picture("PPM")),
    (
        "a PNG of two frames",
        _saved(Image.new("RGB", SIZE), "PNG", save_all=True, append_images=[Image.new("RGB", SIZE)]),
    ),
    ("a JPEG with bytes behind its end", picture() + b"x" * 1000),
    (
        "a PNG with a comment of 64 MB",
        _png(WIDTH, HEIGHT, _ROWS, before=_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**26)))),
    ),
)


def _decode(root: Path) -> Image.Image:
    return open_image(load_index(root, TRAIN), 0)


def _pair(name: str, write: Callable[[Path], Path], checked: Expected, decoded: Expected) -> Iterator[Case]:
    def verify(folder: Path) -> Action:
        return command("data", "verify", write(folder))

    def decode(folder: Path) -> Action:
        root = write(folder)
        return lambda: _decode(root)

    yield Case(AREA, f"{name}, checked", verify, checked)
    yield Case(AREA, f"{name}, decoded", decode, decoded)


def _given(data: bytes, size: tuple[int, int] = SIZE) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        train = content()
        train["images"][0] |= {"width": size[0], "height": size[1]}
        return write_root(folder, train, images={"1.jpg": data})

    return write


def _agree(data: bytes) -> Callable[[Path], Action]:
    """The check and the decoder come to the same."""

    def given(folder: Path) -> Action:
        from detector.data.coco.verify import verify_root
        from detector.errors import DataError

        root = _given(data)(folder)

        def both() -> bool:
            ok = verify_root(root, [TRAIN], decode=True).ok
            try:
                return ok == _rgb(_decode(root))
            except DataError:
                return not ok

        return both

    return given


def _instead(make: Callable[[Path], None]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        root = write_root(folder)
        make(root / TRAIN / "1.jpg")
        return root

    return write


def _linked(folder: Path) -> Path:
    """Data sets are read through links."""
    root = write_root(folder)
    os.rename(root / TRAIN / "1.jpg", folder / "elsewhere.jpg")
    (root / TRAIN / "1.jpg").symlink_to(folder / "elsewhere.jpg")
    return root


def _detected(data: bytes) -> Callable[[Path], Action]:
    """As ``harness detect`` opens a photo."""

    def given(folder: Path) -> Action:
        from detector.evaluation.load import open_upright

        path = folder / "photo.jpg"
        path.write_bytes(data)
        return lambda: open_upright(path)

    return given


def _cases() -> Iterator[Case]:
    for name, data, judge in GOOD:
        taken = right(value=judge)
        yield from _pair(name, _given(data), right("ok"), taken)
        yield Case(AREA, f"{name}, detected on", _detected(data), taken)
    for name, data, words in REFUSED:
        yield from _pair(name, _given(data), told(*words), told())
        if name != "another size":
            yield Case(AREA, f"{name}, detected on", _detected(data), told("photo.jpg"))
    for name, data in ODD:
        yield Case(AREA, f"{name}, alike for all", _agree(data), right(value=True))
        yield Case(AREA, f"{name}, detected on", _detected(data), either())
    for side, claimed in ((30_000, "a bomb"), (100_000, "a larger bomb")):
        data = _png(side, side, zlib.compress(bytes(10**6)))
        yield from _pair(f"{claimed} of {side}^2 pixels", _given(data, (side, side)), told("1.jpg"), told())
        yield Case(AREA, f"{claimed}, detected on", _detected(data), told("photo.jpg"))
    for orientation in range(2, 9):
        data = _turned(orientation)
        yield from _pair(f"orientation {orientation}", _given(data), noted("orientation"), right(value=_rgb))
        upright = SIZE if orientation < 5 else SIZE[::-1]
        turned = right(value=lambda image, size=upright: image.size == size)
        yield Case(AREA, f"orientation {orientation}, detected on", _detected(data), turned)
    yield from _pair("orientation 99", _given(_turned(99)), either(), right(value=_rgb))
    for name, make in (*SPECIAL, ("a link to nothing", dangling), ("nothing", os.unlink)):
        yield from _pair(name, _instead(make), told("1.jpg"), told("1.jpg"))
    yield from _pair("a link to a file elsewhere", _linked, right("ok"), right(value=_rgb))


CASES: Final = tuple(_cases())
