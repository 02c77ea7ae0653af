"""The one decoder: every mode as 8-bit RGB, odd files refused by name, pixels as stored."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detector.data.coco.index import CocoIndex, load_index
from detector.data.images import FORMATS, MOST_PIXELS, Header, open_image, read_header, read_image
from detector.errors import DataError


def split(root: Path, name: str, width: int = 6, height: int = 4) -> CocoIndex:
    """A split of one image, whose file the test writes."""
    content = {
        "images": [{"id": 7, "file_name": name, "width": width, "height": height}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [],
    }
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / "instances_val.json").write_text(json.dumps(content))
    (root / "val").mkdir(exist_ok=True)
    return load_index(root, "val")


def error(root: Path, name: str) -> str:
    """What training and evaluation say to the file, which all others say too."""
    with pytest.raises(DataError, match=f"{name} .image id 7. cannot be read: .*harness data verify") as raised:
        open_image(split(root, name), 0)
    reason = str(raised.value).partition("cannot be read: ")[2].partition(". Run")[0]
    with pytest.raises(DataError) as other:
        read_image(root / "val" / name)
    assert reason in str(other.value)
    return reason


def png_header(width: int, height: int) -> bytes:
    """A PNG file that promises a size, and holds hardly any pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_open_image_gives_the_same_grey_for_every_mode(tmp_path: Path, mode: str) -> None:
    index = split(tmp_path, "a.png")
    white = Image.new("RGB", (6, 4), (255, 255, 255))
    image = Image.fromarray(np.full((4, 6), 0xFFFF, np.uint16)) if mode == "I;16" else white.convert(mode)
    image.save(index.image_path(0))
    found = open_image(index, 0)
    assert found.mode == "RGB"
    assert np.asarray(found).min() == 255


def test_open_image_scales_16_bits_of_grey_in_png_and_tiff(tmp_path: Path) -> None:
    deep = Image.fromarray(np.array([[0, 256, 0x8000, 0xFFFF]], dtype=np.uint16))
    for name in ("a.png", "a.tif", "a.pgm"):
        index = split(tmp_path, name, 4, 1)
        deep.save(index.image_path(0))
        assert np.asarray(open_image(index, 0))[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_open_image_refuses_32_bits(tmp_path: Path, dtype: Any) -> None:
    index = split(tmp_path, "a.tif")
    Image.fromarray(np.ones((4, 6), dtype)).save(index.image_path(0))
    assert error(tmp_path, "a.tif") == "it holds 32 bits per channel; convert it to 8 or 16 bits first"
    with pytest.raises(DataError, match="32 bits per channel"):
        read_header(index.image_path(0), decode=False)


def test_open_image_gives_the_pixels_that_pillow_gives(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    index = split(tmp_path, "a.jpg")
    for mode in ("RGB", "L", "CMYK"):
        Image.fromarray(pixels).convert(mode).save(index.image_path(0))
        with Image.open(index.image_path(0)) as image:
            assert open_image(index, 0).tobytes() == image.convert("RGB").tobytes()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an image (JPEG, PNG, BMP, WEBP, TIFF, GIF, PPM are read)"),
        (b"404 not found", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\n", "not an image"),
        (b"8BPS" + b"\0\1" * 40, "not an image"),
        (png_header(6, 4), "broken image"),
        (png_header(20_000, 20_000), f"the image is too large: at most {MOST_PIXELS:,} pixels are read"),
        (png_header(2**31 - 1, 2**31 - 1), "the image is too large"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_file_that_is_no_image_of_the_known_formats_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "a.jpg").write_bytes(content)
    assert error(tmp_path, "a.jpg").startswith(reason)


def test_a_cut_image_is_named_in_every_format(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    (tmp_path / "val").mkdir()
    for kind in FORMATS:
        whole = io.BytesIO()
        noise.save(whole, kind)
        for share in (0.1, 0.5, 0.9):
            (tmp_path / "val" / "a.jpg").write_bytes(whole.getvalue()[: int(len(whole.getvalue()) * share)])
            assert error(tmp_path, "a.jpg")


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    os.mkfifo(tmp_path / "val" / "a.jpg")
    assert error(tmp_path, "a.jpg") == "is a named pipe, not a regular file"
    (tmp_path / "val" / "b.jpg").symlink_to("/dev/zero")
    assert error(tmp_path, "b.jpg") == "is a device, not a regular file"
    (tmp_path / "val" / "c.jpg").mkdir()
    assert error(tmp_path, "c.jpg") in ("Is a directory", "is a folder, not a regular file")
    (tmp_path / "val" / "d.jpg").symlink_to("d.jpg")
    assert "symbolic links" in error(tmp_path, "d.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_pixels_are_as_stored_unless_asked_for_upright(tmp_path: Path, suffix: str) -> None:
    index = split(tmp_path, f"a.{suffix}")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4), (200, 10, 10)).save(index.image_path(0), exif=exif)
    assert open_image(index, 0).size == (6, 4)
    assert read_image(index.image_path(0), upright=True).size == (4, 6)
    assert read_header(index.image_path(0), decode=True) == Header(6, 4, 6)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_orientation_of_broken_exif_data_is_upright(tmp_path: Path) -> None:
    index = split(tmp_path, "a.jpg")
    for value in (0, 9, 700):
        exif = Image.Exif()
        exif[0x0112] = value
        Image.new("RGB", (6, 4)).save(index.image_path(0), exif=exif)
        assert read_header(index.image_path(0), decode=True).orientation == 1
    Image.new("RGB", (6, 4)).save(index.image_path(0), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert read_header(index.image_path(0), decode=True).orientation == 1
