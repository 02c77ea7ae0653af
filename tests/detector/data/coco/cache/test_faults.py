"""Kept columns that are broken, half written, of another format, out of reach or written by several at once."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest

from detector.data.coco import cache
from detector.data.coco.index import load_index
from detector.storage.staging import remove_abandoned, staging_name
from tests.detector.data.coco.cache.kept_columns import SPLIT, assert_same, entry


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
    half = staging_name(whole)  # what a process that was killed leaves
    whole.rename(half)
    (half / "columns.json").unlink()
    assert_same(load_index(root, SPLIT), root)
    assert reads == [SPLIT, SPLIT]
    assert half.exists()
    os.utime(half, (0, 0))
    remove_abandoned(place / "columns", older_than=cache.ABANDONED_SECONDS)
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
    assert [record.message.split(" cannot")[0] for record in caplog.records] == [
        str(place / "files"),
        str(place / "columns"),
    ]


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
