"""Folders that appear whole: errors, a second writer, a folder of their own to be made in, and removal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from detector.storage.files import write_json
from detector.storage.staging import remove_abandoned, remove_folder, remove_leftovers, staged_folder, staging_name


def fill_while_another_is_faster(target: Path) -> None:
    with staged_folder(target) as staging:
        (staging / "file").write_text("late")
        target.mkdir()
        (target / "file").write_text("early")


def fail_within(target: Path, within: Path) -> None:
    with staged_folder(target, within=within) as staging:
        (staging / "file").write_text("half")
        raise ValueError("broken")


def test_staged_folder_keeps_what_another_process_finished(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="set"):
        fill_while_another_is_faster(tmp_path / "set")
    assert (tmp_path / "set" / "file").read_text() == "early"
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_staged_folder_is_made_within_the_named_folder_and_removes_it_when_empty(tmp_path: Path) -> None:
    within = tmp_path / "staging"
    with staged_folder(tmp_path / "set", within=within) as staging:
        assert staging.parent == within
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    other = within / "of another process"
    other.mkdir(parents=True)
    with pytest.raises(ValueError, match="broken"):
        fail_within(tmp_path / "second", within)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "staging"]
    assert list(within.iterdir()) == [other]


def test_remove_folder_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "set" / "deep").mkdir(parents=True)
    remove_folder(tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def test_remove_abandoned_removes_old_staging_folders_and_nothing_else(tmp_path: Path) -> None:
    old, young, other = staging_name(tmp_path / "set"), staging_name(tmp_path / "set"), tmp_path / "set"
    for folder in (old, young, other):
        folder.mkdir()
    for folder in (old, other):
        os.utime(folder, (0, 0))
    remove_abandoned(tmp_path, older_than=60.0)
    assert set(tmp_path.iterdir()) == {young, other}


def test_leftovers_of_killed_processes_are_removed_and_nothing_else(tmp_path: Path) -> None:
    young = staging_name(tmp_path / "status.json")  # perhaps another process writes it now
    kept = [young, *(tmp_path / name for name in ("0000004.pt", ".lock", "a.tmp"))]
    old = staging_name(tmp_path / "status.json")
    left = (staging_name(tmp_path / "0000008.pt"), staging_name(tmp_path / "detections.json.gz"), old)
    for path in (*kept, *left):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "missing")
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_a_start_takes_nothing_from_who_writes_into_the_run_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a command that asks for an evaluation of a run which begins in the same moment."""
    fsync = os.fsync

    def begin_meanwhile(number: int) -> None:
        remove_leftovers(tmp_path)
        fsync(number)

    monkeypatch.setattr(os, "fsync", begin_meanwhile)
    write_json(tmp_path / "job.json", {"a": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["job.json"]
