"""Images that were replaced under their old names are noticed; the same pixels are the same images."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from detector.data import digest
from detector.data.coco.index import CocoIndex
from detector.data.digest import images_digest
from detector.data.splits import open_split
from detector.errors import DataError
from detector.runs.job import EvalJob


@pytest.fixture
def index(job: EvalJob, data: Path, tmp_path: Path) -> CocoIndex:
    root = shutil.copytree(data, tmp_path / "data")
    return open_split(job.train.data, root, "test")


def test_a_copy_of_the_images_has_the_same_digest(index: CocoIndex, job: EvalJob, data: Path) -> None:
    found = images_digest(index)
    assert found == images_digest(open_split(job.train.data, data, "test"))
    assert found.images == index.num_images
    assert found.bytes == sum(index.image_path(i).stat().st_size for i in range(index.num_images))


def test_inverted_pixels_under_an_old_name_change_the_content(index: CocoIndex) -> None:
    before = images_digest(index)
    with Image.open(index.image_path(0)) as image:
        inverted = ImageOps.invert(image.convert("RGB"))
    inverted.save(index.image_path(0))
    assert images_digest(index).content != before.content


def test_the_same_pixels_written_by_another_encoder_are_the_same_content(index: CocoIndex) -> None:
    before = images_digest(index)
    with Image.open(index.image_path(0)) as image:
        image.load()
    image.save(index.image_path(0), compress_level=9)
    after = images_digest(index)
    assert after.names_and_sizes != before.names_and_sizes
    assert after.content == before.content


def test_of_very_many_bytes_only_names_and_sizes_are_taken(index: CocoIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    before = images_digest(index)
    monkeypatch.setattr(digest, "MOST_BYTES", before.bytes - 1)
    found = images_digest(index)
    assert found.content is None
    assert found.names_and_sizes == before.names_and_sizes


def test_a_missing_image_and_one_that_is_no_image_have_digests_of_their_own(index: CocoIndex) -> None:
    found = [images_digest(index)]
    index.image_path(0).write_bytes(b"no image")
    found.append(images_digest(index))
    index.image_path(0).unlink()
    found.append(images_digest(index))
    assert len({one.content for one in found}) == len({one.names_and_sizes for one in found}) == 3


def test_content_is_read_again_only_where_a_file_changed(
    index: CocoIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digest, "LEAST_BYTES", 0)
    monkeypatch.setattr(digest, "SETTLED_SECONDS", -1.0)  # the copies are some milliseconds old
    read: list[str] = []
    content_of = digest._content_of
    monkeypatch.setattr(digest, "_content_of", lambda file: read.append(file.name) or content_of(file))
    first = images_digest(index)
    assert images_digest(index) == first
    assert len(read) == index.num_images
    status = index.image_path(0).stat()
    os.utime(index.image_path(0), ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert images_digest(index) == first
    assert len(read) == 2 * index.num_images


def test_images_that_are_still_young_are_not_cached(
    index: CocoIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the resolution of its times, a file may change without a trace."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digest, "LEAST_BYTES", 0)
    monkeypatch.setattr(digest, "SETTLED_SECONDS", 1e9)
    images_digest(index)
    assert not (tmp_path / "cache").exists()


def test_a_pipe_in_place_of_an_image_is_refused_at_once(index: CocoIndex) -> None:
    index.image_path(0).unlink()
    os.mkfifo(index.image_path(0))
    with pytest.raises(DataError, match="is a named pipe, not a regular file"):
        images_digest(index)
