"""TensorBoard's values: complete, and no training waits for them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from detector.training import board as board_module
from detector.training.board import Board


def events(folder: Path) -> list[Event]:
    """The records of the one event file, whose sums must be right."""
    (path,) = folder.iterdir()
    data, found = path.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        assert int.from_bytes(data[8:12], "little") == masked_crc32c(data[:8])
        content = data[12 : 12 + length]
        assert int.from_bytes(data[12 + length : 16 + length], "little") == masked_crc32c(content)
        found.append(Event.FromString(content))
        data = data[16 + length :]
    assert found[0].file_version == "brain.Event:2"
    assert not any(event.file_version for event in found[1:])
    return found


def drawn(folder: Path) -> list[tuple[int, str, float]]:
    """Step, name and value in the order of their writing; as in TensorBoard, without what a later start hides."""
    values: list[tuple[int, str, float]] = []
    for event in events(folder):
        if event.HasField("session_log"):
            assert event.session_log.status == SessionLog.START
            values = [value for value in values if value[0] < event.step]
        values += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
    return values


def losses(*steps: int) -> list[tuple[int, str, float]]:
    return [(step, "train/loss", float(step)) for step in steps]


def draw(folder: Path, steps: Iterable[int], *, start: int = 0) -> None:
    board = Board(folder, start=start)
    for step in steps:
        board.add(step, {"loss": float(step)})


def test_board_draws_every_value_at_once(tmp_path: Path) -> None:
    board = Board(tmp_path, start=0)
    board.add(10, {"loss": 0.5, "lr": 0.25})
    assert drawn(tmp_path) == [(10, "train/loss", 0.5), (10, "train/lr", 0.25)]
    board.add(20, {"loss": 0.125})
    assert drawn(tmp_path) == [(10, "train/loss", 0.5), (10, "train/lr", 0.25), (20, "train/loss", 0.125)]
    assert not any(event.HasField("session_log") for event in events(tmp_path))


def test_a_resumed_training_goes_on_in_its_file_and_hides_what_was_drawn_after_its_checkpoint(tmp_path: Path) -> None:
    draw(tmp_path, (10, 20, 30))
    draw(tmp_path, (30, 40, 50), start=20)
    assert drawn(tmp_path) == losses(10, 20, 30, 40, 50)
    assert len(events(tmp_path)) == 8
    draw(tmp_path, (1, 10))  # from the beginning again: no checkpoint was left
    assert drawn(tmp_path) == losses(1, 10)


def test_of_several_files_of_earlier_versions_the_newest_is_gone_on_with(tmp_path: Path) -> None:
    for name, time in (("1", 200), ("2", 100)):
        draw(tmp_path / name, (10,))
        (path,) = (tmp_path / name).iterdir()
        (tmp_path / "all").mkdir(exist_ok=True)
        path = path.rename(tmp_path / "all" / f"events.out.tfevents.{name}")
        os.utime(path, (time, time))
    draw(tmp_path / "all", (20,), start=10)
    assert len(list((tmp_path / "all").iterdir())) == 2
    (tmp_path / "all" / "events.out.tfevents.2").unlink()
    assert drawn(tmp_path / "all") == losses(10, 20)


@pytest.mark.parametrize("cut_off", [1, 4, 5, 20, 39])
def test_a_record_that_a_crash_cut_short_is_written_over(tmp_path: Path, cut_off: int) -> None:
    draw(tmp_path, (10, 20))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-cut_off])
    draw(tmp_path, (20, 30), start=10)
    assert drawn(tmp_path) == losses(10, 20, 30)


@pytest.mark.parametrize("spoilt", [b"", bytes(4096), bytes(3), b"\xff" * 40])
def test_what_a_power_failure_left_at_the_end_is_written_over(tmp_path: Path, spoilt: bytes) -> None:
    draw(tmp_path, (10, 20))
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole + spoilt)
    draw(tmp_path, (30,), start=20)
    assert drawn(tmp_path) == losses(10, 20, 30)
    path.write_bytes(whole[:-30] + bytes(30) if spoilt else b"")  # the last record's content; or everything
    draw(tmp_path, (20,), start=10)
    assert drawn(tmp_path) == (losses(10, 20) if spoilt else losses(20))


def test_board_writes_later_what_storage_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(tmp_path, start=0)
    board.add(1, {"loss": 1.0})
    opened = []

    class Full:
        """A disk on which half of what is written finds room."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.file = open(*args, **kwargs)  # noqa: SIM115  closed by __exit__

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, content: bytes) -> int:
            opened.append(self.file)
            return int(self.file.write(content[: len(content) // 2]))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "away")

    with monkeypatch.context() as patch:
        patch.setattr(board_module, "open", Full, raising=False)
        for step in range(2, 40):  # more than any queue holds
            board.add(step, {"loss": float(step)})
    assert len(opened) == 38
    with monkeypatch.context() as patch:
        patch.setattr(board_module, "open", refuse, raising=False)
        board.add(40, {"loss": 40.0})
    board.add(41, {"loss": 41.0})
    assert drawn(tmp_path) == losses(*range(1, 42))


def test_no_training_ends_for_its_drawings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "events.out.tfevents.1.host").mkdir()
    draw(tmp_path, (1,))
    assert "events.out.tfevents.1.host cannot be read: Is a directory" in caplog.text
