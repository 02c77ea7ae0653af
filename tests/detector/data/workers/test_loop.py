"""Workers that fail: what they lack, what they met and that they died reaches the training; none makes it hang."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.utils.data import Dataset

from detector.data.workers import loop
from detector.data.workers.loop import batches_of_workers
from detector.data.workers.room import explained_deaths
from detector.errors import DataError, TrainingError
from detector.storage.retry import Waiting, retry, watched_by

OWN_MOUNTS = ("unshare", "-m", "bash", "-c")
PROJECT = Path(__file__).resolve().parents[4]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:This DataLoader will create")]

# Batches of 32 MiB from 4 workers; "check" leaves out what is looked at before.
SCRIPT = """
import os, sys
import torch
from detector.data.workers import loop
from detector.errors import HarnessError

class Data(torch.utils.data.Dataset):
    def __getitem__(self, i):
        return [torch.full((2**20,), i, dtype=torch.uint8) for _ in range(32)]

if "unchecked" in sys.argv:
    loop.check_room = lambda *_: None
torch.set_num_threads(1)
try:
    for batch in loop.batches_of_workers(Data(), range(12), workers=4, most_bytes=32 * 2**20, alone=True):
        held = batch
except HarnessError as error:
    print("told:", error)
else:
    print("done", len(os.listdir("/proc/self/fd")))
"""


class Doing(Dataset[int]):
    """Item i, after ``work`` was done where i is 2."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.work = work

    def __getitem__(self, index: int) -> int:
        if index == 2:
            self.work()
        return index


def run_script(*arguments: str, before: str, shell: tuple[str, ...] = ("bash", "-c")) -> str:
    """What the script says under a shell command; a run of more than 30 seconds is an error."""
    command = f"{before}; exec {sys.executable} -W ignore -c '{SCRIPT}' {' '.join(arguments)}"
    done = subprocess.run(
        [*shell, command],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def small_shared_memory() -> str:
    """A shell command that gives what follows a /dev/shm of 64 MiB, as Docker does."""
    mount = "mount -t tmpfs -o size=64m none /dev/shm"
    tried = subprocess.run([*OWN_MOUNTS, mount], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no /dev/shm of 64 MiB can be made here: {tried.stderr.strip()}")
    return mount


@pytest.mark.parametrize("arguments", [(), ("unchecked",)])
def test_a_full_shared_memory_ends_the_training_with_its_cause(
    arguments: tuple[str, ...], small_shared_memory: str
) -> None:
    said = run_script(*arguments, before=small_shared_memory, shell=OWN_MOUNTS)
    assert said.startswith("told: /dev/shm, through which loader workers hand images over,")
    assert "--shm-size=" in said


@pytest.mark.parametrize(
    ("limit", "arguments"), [(30, ()), (40, ()), *((limit, ("unchecked",)) for limit in (24, 26, 27, 30))]
)
def test_too_few_open_files_end_the_training_with_their_cause(limit: int, arguments: tuple[str, ...]) -> None:
    said = run_script(*arguments, before=f"ulimit -n {limit}")
    assert said.startswith("told: Too many open files")
    assert "ulimit -n 4096" in said


def test_a_connection_that_closes_before_the_memory_came_is_a_lack_of_files() -> None:
    class Closed:
        def open(self) -> None:
            raise EOFError

    with pytest.raises(OSError, match="Too many open files"):
        loop._opened(Closed())


def test_a_batch_takes_one_open_file_and_a_low_limit_that_may_be_raised_is_raised() -> None:
    assert run_script(before="ulimit -S -n 40").startswith("done")


def test_a_worker_that_is_killed_ends_the_training_with_its_cause() -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(TrainingError, match=r"Loader worker \d+ .*main memory runs out.*loader_workers"):
        list(batches_of_workers(Doing(die), range(8), workers=2, most_bytes=8, alone=True))


def test_a_worker_that_dies_while_the_training_computes_is_told_too() -> None:
    def died() -> None:
        raise RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed. ")

    with pytest.raises(TrainingError, match="Loader worker 5 was killed"), explained_deaths(4):
        died()
    with pytest.raises(RuntimeError, match="another"), explained_deaths(4):
        raise RuntimeError("another")


def test_a_worker_that_is_asked_prints_where_it_is_and_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    def ask_for_stacks() -> None:
        os.kill(os.getpid(), signal.SIGQUIT)

    assert list(batches_of_workers(Doing(ask_for_stacks), range(4), workers=1, most_bytes=8, alone=True)) == [
        0,
        1,
        2,
        3,
    ]
    assert "in ask_for_stacks" in capfd.readouterr().err


def test_an_error_of_the_data_comes_as_it_was_raised() -> None:
    def broken() -> None:
        raise DataError("17.jpg cannot be read.")

    with pytest.raises(DataError, match=r"^17\.jpg cannot be read\.$"):
        list(batches_of_workers(Doing(broken), range(8), workers=2, most_bytes=8, alone=True))


def test_a_bug_in_a_worker_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError, match="Original Traceback"):
        list(batches_of_workers(Doing(lambda: 1 // 0), range(8), workers=2, most_bytes=8, alone=True))


def test_workers_that_are_silent_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "GIVEN_UP_SECONDS", 2)
    monkeypatch.setattr(loop, "SHOWN_SECONDS", 1)
    told: list[Waiting | None] = []

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    with watched_by(told.append), pytest.raises(TrainingError, match="None of 1 loader workers gave a batch"):
        list(batches_of_workers(Doing(stop), range(8), workers=1, most_bytes=8, alone=True))
    assert told[0] == Waiting("the next images", "no loader worker has them ready", 1, noteworthy=True)


class AskedToStop(Exception):
    """Raised by the test's look."""


def test_a_wait_of_a_worker_for_a_file_is_seen_and_ends_with_the_training() -> None:
    def look(waiting: Waiting | None) -> None:
        if waiting is not None:
            seen.append(waiting)
            raise AskedToStop

    def away() -> None:
        raise OSError(116, "Stale file handle")

    seen: list[Waiting] = []
    with watched_by(look), pytest.raises(AskedToStop):
        list(batches_of_workers(Doing(lambda: retry(away, "17.jpg")), range(8), workers=1, most_bytes=8, alone=False))
    assert (seen[0].what, seen[0].why) == ("17.jpg", "Stale file handle")
