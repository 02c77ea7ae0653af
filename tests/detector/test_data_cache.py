"""The kept columns of an annotation file: every way to be out of date, broken or out of reach gives the same index."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import pickle
import shutil
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest

from detector.data import cache, coco
from detector.data.coco import COLUMNS, CocoIndex, annotations_sha256, load_index, read_split, select, trainable
from detector.errors import DataError
from tests.detector.test_data_coco import Content, content, write

SPLIT = "val2017"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache that keeps the smallest file, however young."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "LEAST_BYTES", 1)
    monkeypatch.setattr(cache, "SETTLED_SECONDS", -1.0)
    cache._tell_once.cache_clear()
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return write(tmp_path / "root", content())


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The splits whose JSON was read."""
    found: list[str] = []

    def counted(root: Path, split: str) -> object:
        found.append(split)
        return read_split(root, split)

    monkeypatch.setattr(coco, "read_split", counted)
    return found


def assert_same(index: CocoIndex, root: Path, split: str = SPLIT) -> None:
    """Every column is that of a direct reading, and of its type."""
    direct, problems = read_split(root, split)
    assert direct is not None
    assert not problems
    assert (index.root, index.split) == (root, split)
    for name in COLUMNS:
        kept, read = getattr(index, name), getattr(direct, name)
        assert kept.dtype == read.dtype, name
        np.testing.assert_array_equal(kept, read, err_msg=name)
    assert index.file_names == direct.file_names
    assert index.category_names == direct.category_names


def entry(place: Path) -> Path:
    (found,) = (place / "columns").iterdir()
    return found


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


def truncate(folder: Path) -> None:
    path = folder / "boxes.npy"
    os.truncate(path, path.stat().st_size - 8)


def empty(folder: Path) -> None:
    (folder / "labels.npy").write_bytes(b"")


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / "boxes.npy").read_bytes())
    content[-3] ^= 1
    (folder / "boxes.npy").write_bytes(content)


def lose_a_column(folder: Path) -> None:
    (folder / "areas.npy").unlink()


def reshape(folder: Path) -> None:
    np.save(folder / "labels.npy", np.load(folder / "labels.npy")[:-1])


def leave_out_of_the_list(folder: Path) -> None:
    described = json.loads((folder / "columns.json").read_text())
    del described["crowd"]
    (folder / "columns.json").write_text(json.dumps(described))


def lose_the_list(folder: Path) -> None:
    (folder / "columns.json").unlink()


def spoil_the_list(folder: Path) -> None:
    (folder / "columns.json").write_text("{")


DAMAGES: list[Callable[[Path], None]] = [
    truncate, empty, flip_a_bit, lose_a_column, reshape, leave_out_of_the_list, lose_the_list, spoil_the_list
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_load_index_reads_the_file_again_where_the_kept_columns_are_broken(
    damage: Callable[[Path], None], root: Path, place: Path, reads: list[str]
) -> None:
    load_index(root, SPLIT)
    damage(entry(place))
    for _ in range(2):  # the second finds what the first has repaired
        assert_same(load_index(root, SPLIT), root)
    assert reads == [SPLIT, SPLIT]
    assert [path.name[0] for path in (place / "columns").iterdir()] == ["i"]  # nothing temporary is left


def test_load_index_does_not_use_columns_of_another_format(
    root: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load_index(root, SPLIT)
    monkeypatch.setattr(cache, "FORMAT", 2)
    assert_same(load_index(root, SPLIT), root)
    assert reads == [SPLIT, SPLIT]


def test_load_index_does_not_use_a_half_written_folder(root: Path, place: Path, reads: list[str]) -> None:
    load_index(root, SPLIT)
    whole = entry(place)
    half = whole.with_name(f".{whole.name}.0123.tmp")  # what a process that was killed leaves
    whole.rename(half)
    (half / "columns.json").unlink()
    assert_same(load_index(root, SPLIT), root)
    assert reads == [SPLIT, SPLIT]
    assert half.exists()
    os.utime(half, (0, 0))
    cache._sweep(place / "columns")
    assert not half.exists()
    assert entry(place) == whole


def test_load_index_reads_the_file_where_nothing_can_be_kept(
    root: Path, place: Path, reads: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    place.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            index = load_index(root, SPLIT)
            assert_same(index, root)
            assert index.mapped is None
    assert len(reads) == 3
    assert [record.message.split(" does")[0] for record in caplog.records] == [
        str(place / "files"),
        str(place / "columns"),
    ]


def test_cache_folder_is_found_in_the_environment_then_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("HARNESS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache.cache_folder() == Path("/caches/drloss-harness")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache.cache_folder() == Path("/home/somebody/.cache/drloss-harness")


def build(root: Path, barrier: Barrier) -> None:
    cache.LEAST_BYTES, cache.SETTLED_SECONDS = 1, -1.0
    barrier.wait()
    for _ in range(5):
        assert_same(load_index(root, SPLIT), root)


@pytest.mark.parametrize("broken", [False, True])
def test_load_index_is_right_in_processes_that_keep_it_at_once(broken: bool, root: Path, place: Path) -> None:
    if broken:
        load_index(root, SPLIT)
        flip_a_bit(entry(place))
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    builders = [context.Process(target=build, args=(root, barrier)) for _ in range(3)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert [builder.exitcode for builder in builders] == [0] * 3
    assert [path.name[0] for path in (place / "columns").iterdir()] == ["i"]
    assert_same(load_index(root, SPLIT), root)


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
