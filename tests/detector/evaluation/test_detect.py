"""Image files of every kind as ``harness detect`` opens them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.errors import DataError
from detector.evaluation.load import open_upright
from tests.own_roots import SIZE, root_of


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_open_upright_gives_rgb_for_every_common_mode(tmp_path: Path, mode: str) -> None:
    white = Image.new("RGB", (6, 4), (255, 255, 255)).convert(mode.replace("PA", "RGBA"))
    path = saved(tmp_path / "image.tiff", white.convert(mode) if mode == "PA" else white)
    opened = open_upright(path)
    assert (opened.mode, opened.size) == ("RGB", (6, 4))
    assert np.asarray(opened).min() >= 250


def test_open_upright_takes_a_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    opened = open_upright(saved(tmp_path / "palette.png", image, transparency=bytes([0, 255])))
    assert np.asarray(opened).tolist() == [[[255, 0, 0], [0, 0, 255]]]


def test_open_upright_scales_16_bits_down_instead_of_clipping(tmp_path: Path) -> None:
    pixels = np.array([[0, 256, 0x8000, 0xFFFF]], dtype=np.uint16)
    opened = open_upright(saved(tmp_path / "deep.png", Image.fromarray(pixels)))
    assert np.asarray(opened)[..., 0].tolist() == [[0, 1, 128, 255]]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_open_upright_turns_as_exif_says(tmp_path: Path, orientation: int) -> None:
    stored = Image.new("RGB", (4, 2))
    stored.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = orientation
    opened = np.asarray(open_upright(saved(tmp_path / "turned.png", stored, exif=exif)))[..., 0]
    height, width = {1: (2, 4), 3: (2, 4), 6: (4, 2), 8: (4, 2)}[orientation]
    corner = {1: (0, 0), 3: (1, 3), 6: (0, 1), 8: (3, 0)}[orientation]  # where the stored first pixel is seen
    assert opened.shape == (height, width)
    assert np.argwhere(opened == 255).tolist() == [list(corner)]


def test_open_upright_leaves_the_images_of_a_coco_root_as_stored(tmp_path: Path) -> None:
    root = root_of(tmp_path / "root", orientation=6)
    assert open_upright(root / "val" / "1.jpg").size == SIZE
    for place in (tmp_path / "1.jpg", root / "1.jpg", root / "other" / "1.jpg"):
        place.parent.mkdir(exist_ok=True)
        shutil.copy(root / "val" / "1.jpg", place)
        assert open_upright(place).size == SIZE[::-1]


def test_open_upright_refuses_floats_and_what_is_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="32 bits per channel"):
        open_upright(saved(tmp_path / "float.tiff", Image.new("F", (2, 2))))
    (tmp_path / "text.jpg").write_text("no image")
    for name in ("text.jpg", "missing.jpg", "."):
        with pytest.raises(DataError, match="is not an image that can be read"):
            open_upright(tmp_path / name)
    path = saved(tmp_path / "large.png", Image.new("L", (100, 100)))
    monkeypatch.setattr("detector.data.images.MOST_PIXELS", 9_999)
    with pytest.raises(DataError, match="is not an image that can be read: the image is too large: 10,000 pixels"):
        open_upright(path)
