"""Image files of every kind as ``harness detect`` opens them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.errors import DataError, UsageError
from detector.evaluation.detect import Drawing, detect_files
from detector.evaluation.load import Found, open_upright
from detector.runs.folder import RunDir
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


class Detector:
    """Finds one object in each image."""

    def detect(self, image: Image.Image) -> list[Found]:
        return [Found("thing", 0.9, (0.0, 0.0, image.width / 2, image.height / 2))]


@pytest.fixture
def detector_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detector.evaluation.detect.load_run", lambda *_, **__: Detector())


def detect(images: list[Path], out: Path, *, force: bool = True) -> list[Drawing]:
    return detect_files(RunDir(out), images, out, test=None, min_score=0.5, device="cpu", force=force)


@pytest.mark.usefixtures("detector_of_one")
@pytest.mark.parametrize("how", ["itself", "a symlink", "a hard link", "another spelling", "a linked folder"])
def test_a_drawing_never_replaces_an_input_by_whatever_name(tmp_path: Path, how: str) -> None:
    own = saved(tmp_path / "photo.png", Image.new("RGB", (64, 64)))
    before, out, given = own.read_bytes(), tmp_path, own
    if how == "a symlink":
        given = tmp_path / "elsewhere" / "photo.png"
        given.parent.mkdir()
        given.symlink_to(own)
    elif how == "a hard link":
        given = tmp_path / "elsewhere" / "photo.jpg"
        given.parent.mkdir()
        os.link(own, given)
    elif how == "another spelling":
        (tmp_path / "elsewhere").mkdir()
        given = tmp_path / "elsewhere" / ".." / "photo.png"
    elif how == "a linked folder":
        out = tmp_path / "elsewhere"
        out.symlink_to(tmp_path)
    with pytest.raises(UsageError, match="is one of the images; its drawing does not replace it"):
        detect([given], out)
    assert own.read_bytes() == before
    assert not (tmp_path / "detections.json").exists()


@pytest.mark.usefixtures("detector_of_one")
def test_two_names_that_a_file_system_may_not_tell_apart_are_refused(tmp_path: Path) -> None:
    images = [saved(tmp_path / name, Image.new("RGB", (64, 64))) for name in ("a.png", "A.jpg")]
    with pytest.raises(DataError, match="would overwrite each other"):
        detect(images, tmp_path / "out")


@pytest.mark.usefixtures("detector_of_one")
def test_small_images_of_odd_modes_are_drawn_enlarged_and_listed_in_their_own_pixels(tmp_path: Path) -> None:
    images = [
        saved(tmp_path / f"{mode}.png", Image.new(mode, (32, 20))) for mode in ("1", "L", "LA", "P", "RGBA", "I;16")
    ]
    drawn = detect(images, tmp_path / "out")
    assert {one.factor for one in drawn} == {20}
    for one in drawn:
        with Image.open(one.path) as picture:
            assert picture.width >= 640
    listed = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {tuple(entry["box"]) for found in listed.values() for entry in found} == {(0, 0, 16, 10)}
