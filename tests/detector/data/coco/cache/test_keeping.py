"""An annotation file that is read once: whose columns they are, when they are kept, and how they travel."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from detector.data.coco import cache
from detector.data.coco import index as coco
from detector.data.coco.files import annotations_sha256
from detector.data.coco.index import load_index, read_split, select, trainable
from detector.errors import DataError
from tests.detector.data.coco.cache.kept_columns import SPLIT, assert_same
from tests.detector.data.coco.test_index import Content, content, write


def test_load_index_reads_the_file_once_and_maps_its_columns(root: Path, reads: list[str]) -> None:
    first, second = load_index(root, SPLIT), load_index(root, SPLIT)
    assert reads == [SPLIT]
    for index in (first, second):
        assert_same(index, root)
        assert index.mapped == (annotations_sha256(root, SPLIT), "instances")
        assert not index.boxes.flags.owndata
        assert not index.boxes.flags.writeable
        assert type(index.boxes) is np.ndarray
    assert second.annotations_of(1) == slice(0, 2)
    assert trainable(second).tolist() == [1]
    assert second.crowd.tolist() == [False, False, True]
    assert second.areas.tolist() == [20.25, 20.75 * 16, 600.5]


def test_select_of_a_mapped_index_is_not_mapped(root: Path) -> None:
    load_index(root, SPLIT)
    cut = select(load_index(root, SPLIT), np.array([1, 2]))
    assert cut.mapped is None
    assert cut.file_names == ["b.jpg", "c.jpg"]


def test_load_index_keeps_names_beyond_ascii(root: Path, reads: list[str]) -> None:
    value = content()
    value["images"][0]["file_name"] = "année/ü.jpg"
    value["categories"][1]["name"] = "自動車"
    write(root, value)
    for _ in range(2):
        index = load_index(root, SPLIT)
        assert index.file_name(2) == "année/ü.jpg"
        assert index.category_names == ("自動車", "toothbrush")
    assert reads == [SPLIT]


def test_load_index_keeps_a_split_without_labels(root: Path, reads: list[str]) -> None:
    value = content()
    del value["annotations"]
    (root / "annotations" / "image_info_test2017.json").write_text(json.dumps(value))
    for _ in range(2):
        index = load_index(root, "test2017")
        assert_same(index, root, "test2017")
        assert index.boxes.shape == (0, 4)
    assert reads == ["test2017"]
    # The same content as a labelled split has no list of annotations, which is a mistake there.
    shutil.copy(root / "annotations" / "image_info_test2017.json", root / "annotations" / "instances_test2017.json")
    with pytest.raises(DataError, match="annotations"):
        load_index(root, "test2017")


def test_load_index_finds_the_columns_of_a_copy_elsewhere(root: Path, tmp_path: Path, reads: list[str]) -> None:
    load_index(root, SPLIT)
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    assert_same(load_index(copy, SPLIT), copy)
    assert reads == [SPLIT]


def test_load_index_tells_files_of_one_name_apart(root: Path, tmp_path: Path, reads: list[str]) -> None:
    load_index(root, SPLIT)
    (tmp_path / "other").mkdir()
    value = content()
    value["annotations"][0]["bbox"] = [0, 0, 40, 29]
    other = write(tmp_path / "other", value)
    for _ in range(2):
        assert_same(load_index(other, SPLIT), other)
        assert_same(load_index(root, SPLIT), root)
    assert reads == [SPLIT, SPLIT]


def test_load_index_sees_a_change_that_keeps_size_and_time(root: Path) -> None:
    path = root / "annotations" / f"instances_{SPLIT}.json"
    load_index(root, SPLIT)
    before, sha256 = path.stat(), annotations_sha256(root, SPLIT)
    with path.open("r+b") as file:  # in place: the inode stays
        file.write(path.read_bytes().replace(b"[1.5, 2.25, 4, 8]", b"[1.5, 2.25, 4, 9]"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert_same(load_index(root, SPLIT), root)
    assert annotations_sha256(root, SPLIT) != sha256


def test_content_of_hashes_an_unchanged_file_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []
    digest = cache.hashlib.file_digest
    monkeypatch.setattr(cache.hashlib, "file_digest", lambda *args: (hashed.append(1), digest(*args))[1])
    shas = {annotations_sha256(root, SPLIT) for _ in range(3)}
    load_index(root, SPLIT)
    assert len(shas) == len(hashed) == 1


def test_load_index_keeps_nothing_of_a_file_that_is_seconds_old(
    root: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "SETTLED_SECONDS", 2.0)
    index = load_index(root, SPLIT)
    assert_same(index, root)
    assert index.mapped is None
    assert not place.exists()


def test_load_index_keeps_nothing_of_a_file_that_changes_while_it_is_read(
    root: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = content()
    value["annotations"][0]["bbox"] = [0, 0, 40, 29]

    def changed(root: Path, split: str) -> object:
        write(root, value)
        return read_split(root, split)

    monkeypatch.setattr(coco, "read_split", changed)
    assert_same(load_index(root, SPLIT), root)
    assert not (place / "columns").exists()


def test_load_index_reads_a_small_file_directly(root: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LEAST_BYTES", 4 * 2**20)
    assert load_index(root, SPLIT).mapped is None
    assert not place.exists()


def test_load_index_tells_problems_every_time_and_keeps_none(root: Path, place: Path, reads: list[str]) -> None:
    value = content()
    value["annotations"][0]["bbox"] = [0, 0, -40, 30]
    write(root, value)
    for _ in range(2):
        with pytest.raises(DataError, match="negative size"):
            load_index(root, SPLIT)
    assert reads == [SPLIT, SPLIT]
    assert not (place / "columns").exists()


def test_mapped_index_is_pickled_as_its_address(root: Path, reads: list[str]) -> None:
    index = load_index(root, SPLIT)
    pickled = pickle.dumps(index)
    assert len(pickled) < 500
    assert_same(pickle.loads(pickled), root)
    assert reads == [SPLIT]


def test_mapped_index_is_read_again_where_its_columns_are_gone(root: Path, place: Path) -> None:
    pickled = pickle.dumps(load_index(root, SPLIT))
    shutil.rmtree(place)
    assert_same(pickle.loads(pickled), root)
    shutil.rmtree(place)
    value: Content = content()
    value["annotations"].pop()
    write(root, value)
    with pytest.raises(DataError, match="has changed since it was opened"):
        pickle.loads(pickled)


def test_read_index_is_pickled_whole(root: Path) -> None:
    index, _ = read_split(root, SPLIT)
    assert_same(pickle.loads(pickle.dumps(index)), root)


def test_cache_folder_is_found_in_the_environment_then_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("HARNESS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache.cache_folder() == Path("/caches/drloss-harness")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache.cache_folder() == Path("/home/somebody/.cache/drloss-harness")
