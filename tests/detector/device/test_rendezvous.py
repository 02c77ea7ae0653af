"""How the processes of one Slurm job find each other."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from detector.device import rendezvous
from detector.device.rendezvous import meet
from detector.errors import TrainingError


def test_meet_shares_a_store_at_a_port_that_was_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "no-such-node.invalid")  # as where nodes cannot resolve Slurm's names
    monkeypatch.setattr(rendezvous.socket, "gethostname", lambda: "127.0.0.1")
    (tmp_path / ".meeting-6-0.json").write_text('{"host": "127.0.0.1", "port": 1}')  # of an earlier job
    file, seen = tmp_path / ".meeting-7-0.json", list[Any]()

    def second() -> None:
        seen.append(meet(file, rank=1, world_size=2).get("said"))

    thread = threading.Thread(target=second)
    thread.start()
    first = meet(file, rank=0, world_size=2)
    first.set("said", "hello")
    thread.join(20)
    assert seen == [b"hello"]
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert json.loads(file.read_text())["port"] == first.port


def test_two_jobs_of_one_machine_get_different_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    stores = [meet(tmp_path / name / "meeting.json", rank=0, world_size=2) for name in ("a", "b")]
    assert len({store.port for store in stores}) == 2


def test_meet_gives_up_where_rank_0_does_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "WAIT_SECONDS", 0.3)
    with pytest.raises(TrainingError, match="Rank 0 did not start"):
        meet(tmp_path / "meeting.json", rank=1, world_size=2)
