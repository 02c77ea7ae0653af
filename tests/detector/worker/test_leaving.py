"""A run that is asked to leave: which signal says why, and what its processes do meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from detector.runs.folder import RunDir
from detector.runs.job import Shapes
from detector.training.stop import STOP_SIGNALS, StopFlag, StopRequested
from detector.worker.leaving import exit_code, why_left
from support.micro import micro_assignment, micro_data, micro_job, write_experiments
from support.processes import WAIT_SECONDS, outputs, run_tasks


@pytest.fixture
def flag() -> Iterator[StopFlag]:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield StopFlag()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("numbers", "left"),
    [
        ((), ""),
        ((signal.SIGUSR2,), "time"),
        ((signal.SIGTERM,), "asked"),
        ((signal.SIGINT,), "asked"),
        ((signal.SIGTERM, signal.SIGUSR2), "asked"),  # the first counts
        ((signal.SIGUSR2, signal.SIGTERM), "time"),
    ],
)
def test_why_a_run_left_follows_from_its_first_signal(
    flag: StopFlag, numbers: tuple[signal.Signals, ...], left: str
) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)
    assert why_left(flag, wait=False) == left


def test_the_signal_of_another_process_is_waited_for_a_little(flag: StopFlag, monkeypatch: pytest.MonkeyPatch) -> None:
    later = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR2))
    later.start()
    assert why_left(flag, wait=True) == "time"
    later.join()


def test_of_a_slurm_job_only_rank_0_fails_after_a_stop() -> None:
    codes = [exit_code(rank, under_slurm=under_slurm) for under_slurm in (True, False) for rank in (0, 1)]
    assert codes == [130, 0, 130, 130]


BLOCKED = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
os.kill(os.getpid(), signal.SIGUSR2)
from detector.training.stop import StopFlag
assert StopFlag().first == signal.SIGUSR2
"""


def test_a_signal_that_was_blocked_during_the_imports_arrives_with_the_flag() -> None:
    # In a process of its own: here other threads have not blocked it, and one of them would be ended by it.
    subprocess.run([sys.executable, "-c", BLOCKED], check=True)


def test_at_once_heeds_only_the_signals_it_is_given(flag: StopFlag) -> None:
    with flag.at_once((signal.SIGINT, signal.SIGTERM)):
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(0.01)
        assert flag.first == signal.SIGUSR2  # noted, and the evaluation goes on
        with pytest.raises(StopRequested):
            _send_and_wait(signal.SIGTERM)


def _send_and_wait(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(5)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["training", "evaluating"])
def test_a_job_whose_time_is_up_says_so_and_only_its_rank_0_goes_with_130(tmp_path: Path, phase: str) -> None:
    job = micro_job(write_experiments(tmp_path / "experiments", iterations=400 if phase == "training" else 2))
    if phase == "evaluating":  # enough images to be met there
        assert isinstance(job.train.data, Shapes)
        job = replace(job, train=replace(job.train, data=replace(job.train.data, num_test=400)))
    data = micro_data(tmp_path / "data", job)
    run = RunDir(tmp_path / "run")

    def time_is_up(processes: list[subprocess.Popen[bytes]]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while (status := run.read_status()) is None or status.phase != phase:
            assert time.monotonic() < deadline, outputs(run)
            time.sleep(0.001)
        assert status.job == "40_1"
        processes[1].send_signal(signal.SIGUSR2)
        time.sleep(0.05)
        processes[0].send_signal(signal.SIGUSR2)
        if phase == "evaluating":  # then Slurm ends the others
            processes[0].wait(WAIT_SECONDS)
            processes[1].send_signal(signal.SIGTERM)

    codes = run_tasks(micro_assignment(job, run.root, data), 2, time_is_up)
    assert codes[0] == 130, outputs(run)
    assert codes[1] == 0 or phase == "evaluating", outputs(run)
    status = run.read_status()
    assert status is not None
    assert (status.phase, status.left) == ("stopped", "time")
    assert "saved" in status.message
