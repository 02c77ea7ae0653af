"""TensorBoard's values: complete, and no training waits for them."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter

from detector.training.board import Board


def events(path: Path) -> list[Event]:
    """The records of an event file: each has its length in 8 bytes, a sum of 4, its content and a sum of 4."""
    data, found = path.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def drawn(folder: Path) -> list[tuple[int, str, float]]:
    """Step, name and value of all files, in the order of their writing."""
    files = sorted(folder.iterdir(), key=lambda path: int(path.suffix[1:]))
    values = [(event.step, value) for path in files for event in events(path) for value in event.summary.value]
    return [(step, value.tag, value.simple_value) for step, value in values]


def test_board_draws_every_value_at_once(tmp_path: Path) -> None:
    board = Board(tmp_path, start=0)
    board.add(10, {"loss": 0.5, "lr": 0.25})
    board.add(20, {"loss": 0.125})
    assert drawn(tmp_path) == [(10, "train/loss", 0.5), (10, "train/lr", 0.25), (20, "train/loss", 0.125)]
    assert not any(event.HasField("session_log") for path in tmp_path.iterdir() for event in events(path))
    board.close()


def test_board_of_a_resumed_training_hides_what_was_drawn_after_its_checkpoint(tmp_path: Path) -> None:
    board = Board(tmp_path, start=20)
    board.add(30, {"loss": 0.5})
    board.close()
    (path,) = tmp_path.iterdir()
    (begun,) = [event for event in events(path) if event.HasField("session_log")]
    assert (begun.step, begun.session_log.status) == (21, SessionLog.START)


def test_board_goes_on_in_a_new_file_after_storage_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(tmp_path, start=0)
    board.add(1, {"loss": 1.0})

    def refuse(writer: Any) -> None:
        raise OSError(errno.EIO, "away")

    with monkeypatch.context() as patch:
        patch.setattr(RecordWriter, "flush", refuse)
        for iteration in range(2, 40):  # more than any queue holds
            board.add(iteration, {"loss": float(iteration)})
    board.add(40, {"loss": 40.0})
    board.close()
    newest = max(tmp_path.iterdir(), key=lambda path: int(path.suffix[1:]))
    steps = [event.step for event in events(newest) if event.summary.value]
    assert steps == list(range(2, 41))
    assert set(drawn(tmp_path)) == {(step, "train/loss", float(step)) for step in range(1, 41)}
