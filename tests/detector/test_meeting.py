"""Processes that find each other by a file: ports are chosen when they are needed, and an old file misleads nobody."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest
import torch.distributed as dist

from detector import meeting
from detector.errors import TrainingError
from detector.meeting import Place, meet
from detector.rundir import read_json, write_json


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "CONNECT_SECONDS", 1.0)


def test_all_processes_get_the_store_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "meeting.json"
    found: list[dist.TCPStore] = []
    others = [
        threading.Thread(target=lambda rank=rank: found.append(meet(path, host="127.0.0.1", rank=rank, size=3)))
        for rank in (1, 2)
    ]
    for other in others:
        other.start()
    time.sleep(0.3)  # they are there first
    first = meet(path, host="127.0.0.1", rank=0, size=3)
    for other in others:
        other.join(10)
    first.set("word", "hello")
    assert [store.get("word") for store in found] == [b"hello", b"hello"]
    assert read_json(path, Place).port == first.port


def test_a_place_of_an_earlier_start_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "meeting.json"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        write_json(path, Place("127.0.0.1", closed.getsockname()[1]))  # bound, nobody listens
        found: list[dist.TCPStore] = []
        other = threading.Thread(target=lambda: found.append(meet(path, host="127.0.0.1", rank=1, size=2)))
        other.start()
        time.sleep(0.5)
        first = meet(path, host="127.0.0.1", rank=0, size=2)
        other.join(20)
    first.set("word", "new")
    assert found[0].get("word") == b"new"


def test_two_runs_at_once_take_two_ports(tmp_path: Path) -> None:
    stores = [meet(tmp_path / f"{i}.json", host="127.0.0.1", rank=0, size=2) for i in range(2)]
    assert stores[0].port != stores[1].port


def test_a_first_process_that_never_comes_is_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"Process 1 of 2 did not find process 0 within 1 s"):
        meet(tmp_path / "meeting.json", host="127.0.0.1", rank=1, size=2, wait_seconds=1)
