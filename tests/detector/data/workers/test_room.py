"""Whether the machine has room for loader workers is known before they start, in words that say what to change."""

from __future__ import annotations

import errno
import os
import resource

import pytest

from detector.data.workers import room
from detector.data.workers.room import check_files, check_room, death_of_worker, needs_more_room
from detector.errors import TrainingError

MIB = 2**20


def test_check_room_takes_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "shared_space", lambda: (100 * MIB, 100 * MIB))
    check_room(10 * MIB, 4)  # 2 batches for each of 4 workers, and 2 in use


@pytest.mark.parametrize(("free", "size", "beside"), [(99, 999, 1), (100, 199, 2)])
def test_check_room_refuses_what_does_not_fit(
    free: int, size: int, beside: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "shared_space", lambda: (free * MIB, size * MIB))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(beside))
    with pytest.raises(TrainingError, match=rf"/dev/shm.* has {free} MiB left; .* up to {100 * beside} MiB") as told:
        check_room(10 * MIB, 4)
    for word in ("--shm-size=1g", "--ipc=host", "execution.loader_workers", "now 4"):
        assert word in str(told.value)


def test_check_room_asks_for_nothing_where_shared_memory_cannot_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "shared_space", lambda: None)
    check_room(10**15, 4)


def test_check_files_raises_a_limit_that_may_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []
    monkeypatch.setattr(room, "open_files", lambda: 10)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (40, 1000))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, pair: limits.append(pair))
    check_files(4)
    assert limits == [(10 + 6 * 4 + 24, 1000)]


def test_check_files_refuses_a_limit_that_may_not_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "open_files", lambda: 10)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (40, 40))
    with pytest.raises(TrainingError, match=r"may open 40 files; with 4 loader workers it needs 58.*ulimit -n 4096"):
        check_files(4)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "ulimit -n"),
        (RuntimeError("unable to open shared memory object </torch_1>: Too many open files (24)"), "ulimit -n"),
        (RuntimeError("received 0 items of ancdata"), "ulimit -n"),
        (RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left"), "--shm-size"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "--shm-size"),
    ],
)
def test_an_error_of_a_worker_without_room_says_what_to_change(error: OSError | RuntimeError, said: str) -> None:
    assert said in str(needs_more_room(error, 4))


def test_other_errors_of_a_worker_are_not_explained_away() -> None:
    assert needs_more_room(RuntimeError("The size of tensor a must match"), 4) is None
    assert death_of_worker(RuntimeError("The size of tensor a must match"), 4) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("DataLoader worker (pid 17) is killed by signal: Killed. ", "main memory"),
        ("DataLoader worker (pid(s) 17, 18) exited unexpectedly", "main memory"),
        ("DataLoader worker (pid 17) is killed by signal: Bus error. It is possible that", "--shm-size"),
        ("DataLoader worker (pid 17) is killed by signal: Segmentation fault. ", "harness data verify"),
    ],
)
def test_a_dead_worker_is_told_with_what_to_change(text: str, said: str) -> None:
    message = str(death_of_worker(RuntimeError(text), 4))
    assert said in message
    assert "execution.loader_workers" in message
