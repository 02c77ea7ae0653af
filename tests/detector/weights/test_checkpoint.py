"""Checkpoints: atomic, the newest readable one is used, no code runs on loading."""

from __future__ import annotations

import errno
import io
import logging
import os
import pickle
import resource
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from detector.errors import WeightsError
from detector.storage import reading
from detector.storage import retry as retrying
from detector.weights import checkpoint


def test_save_step_keeps_the_newest_two(tmp_path: Path) -> None:
    for iteration in (10, 20, 30):
        checkpoint.save_step(tmp_path, iteration, {"iteration": iteration})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0000020.pt", "0000030.pt"]
    newest = checkpoint.load_newest(tmp_path)
    assert newest is not None
    assert newest["iteration"] == 30


@pytest.mark.parametrize("numbers", [100, 1_000_000])
def test_save_says_with_the_systems_own_error_that_there_is_no_room_and_leaves_nothing(
    tmp_path: Path, numbers: int
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            checkpoint.save(tmp_path / "0000010.pt", {"w": torch.arange(float(numbers))})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert not list(tmp_path.iterdir())


def test_save_says_that_a_file_server_was_away_for_a_moment_with_its_own_error() -> None:
    class AwayOnce(io.BytesIO):
        calls = 0

        def write(self, data: bytes) -> int:  # type: ignore[override]
            self.calls += 1
            if self.calls == 3:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().write(data)

    with pytest.raises(OSError, match="Input/output error"):
        checkpoint._write({"w": torch.arange(1000.0)}, AwayOnce())


def test_load_newest_falls_back_to_the_one_before_a_damaged_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for iteration in (10, 20):
        checkpoint.save_step(tmp_path, iteration, {"iteration": iteration, "w": torch.arange(1000.0)})
    newest = tmp_path / "0000020.pt"
    newest.write_bytes(newest.read_bytes()[:700])
    with caplog.at_level(logging.WARNING):
        state = checkpoint.load_newest(tmp_path)
    assert state is not None
    assert state["iteration"] == 10
    assert "0000020.pt" in caplog.text


def test_load_newest_falls_back_where_one_bit_of_the_weights_is_flipped(tmp_path: Path) -> None:
    for iteration in (10, 20):
        checkpoint.save_step(tmp_path, iteration, {"iteration": iteration, "w": torch.arange(1000.0)})
    newest = tmp_path / "0000020.pt"
    content = bytearray(newest.read_bytes())
    content[content.index(torch.arange(1000.0).numpy().tobytes()) + 2000] ^= 1
    newest.write_bytes(content)
    state = checkpoint.load_newest(tmp_path)
    assert state is not None
    assert state["iteration"] == 10


def test_load_newest_waits_for_storage_that_is_away_and_gives_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for iteration in (10, 20):
        checkpoint.save_step(tmp_path, iteration, {"iteration": iteration})
    answers = [OSError(errno.EIO, "away"), OSError(errno.ESTALE, "away")]
    opened = reading._opened

    def away_twice(path: Path) -> BinaryIO:
        if answers:
            raise answers.pop()
        return opened(path)

    monkeypatch.setattr(reading, "_opened", away_twice)
    monkeypatch.setattr(retrying.time, "sleep", lambda seconds: None)
    state = checkpoint.load_newest(tmp_path)
    assert state is not None
    assert state["iteration"] == 20
    assert not answers


def test_load_newest_of_storage_that_stays_away_fails_instead_of_beginning_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save_step(tmp_path, 10, {"iteration": 10})

    def away(path: Path) -> BinaryIO:
        raise OSError(errno.EIO, "away")

    monkeypatch.setattr(reading, "_opened", away)
    monkeypatch.setattr(retrying, "RETRY_SECONDS", 0.0)
    with pytest.raises(OSError, match="away"):
        checkpoint.load_newest(tmp_path)


def test_load_newest_without_checkpoints_is_none(tmp_path: Path) -> None:
    assert checkpoint.load_newest(tmp_path / "missing") is None


class _RunsCode:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_load_refuses_a_pickle_that_would_run_code(tmp_path: Path) -> None:
    evil, victim = tmp_path / "evil.pt", tmp_path / "written"
    torch.save({"model": _RunsCode(victim)}, evil)
    with pytest.raises(WeightsError, match=r"evil\.pt is not a readable checkpoint"):
        checkpoint.load(evil)
    evil.write_bytes(pickle.dumps(_RunsCode(victim)))
    with pytest.raises(WeightsError, match="not a readable checkpoint"):
        checkpoint.load(evil)
    assert not victim.exists()


def test_load_missing_names_the_next_command(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="harness run"):
        checkpoint.load(tmp_path / "final.pt")
