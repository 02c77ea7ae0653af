"""A job whose time is up: which signal says so, who asks for the next start, and what the others do meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from detector.runs.folder import RunDir
from detector.runs.job import Shapes
from detector.training.stop import STOP_SIGNALS, StopFlag, StopRequested
from detector.worker.requeue import after_stop
from support.micro import micro_assignment, micro_data, micro_job, write_experiments
from support.processes import WAIT_SECONDS, outputs, run_processes


@pytest.fixture
def flag() -> Iterator[StopFlag]:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield StopFlag()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in that keeps what it was asked, and a job's environment."""
    folder = tmp_path / "bin"
    folder.mkdir()
    asked = tmp_path / "asked.txt"
    tool = folder / "scontrol"
    tool.write_text(
        f'#!/bin/sh\necho "$@" >> {asked}\n[ "$1" != show ] || {{ echo "$SHOWN"; exit 0; }}\n'
        '[ -z "$REFUSE" ] || { echo "$REFUSE" >&2; exit 1; }\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "REFUSE", "SHOWN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    return asked


@pytest.mark.parametrize(
    ("environment", "job", "words"),
    [
        ({}, "41", "; queued again (1 of at most 3)"),
        ({"SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "1"}, "40_1", "; queued again (1 of at most 3)"),
        ({"SLURM_RESTART_COUNT": "2"}, "41", "; queued again (3 of at most 3)"),
        (
            {"REFUSE": "slurm_requeue error: disabled"},
            "41",
            "; it could not be queued again: slurm_requeue error: disabled",
        ),
    ],
)
def test_after_stop_asks_for_the_element_that_stopped(
    flag: StopFlag, scontrol: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], job: str, words: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    os.kill(os.getpid(), signal.SIGUSR2)
    assert after_stop(flag, 3) == words
    assert scontrol.read_text() == f"requeue {job}\n"


def test_after_stop_leaves_a_job_alone_that_was_queued_often_enough(
    flag: StopFlag, scontrol: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    os.kill(os.getpid(), signal.SIGUSR2)
    assert "not queued again: it was 3 times" in after_stop(flag, 3)
    assert not scontrol.exists()


RUNNING = "JobId=41 JobName=x JobState=RUNNING StartTime=2026-01-01T10:00:00"


@pytest.mark.parametrize(
    "shown",
    [
        f"{RUNNING} PreemptTime=None",
        f"{RUNNING} PreemptTime=2026-01-01T09:00:00",  # of an earlier start
        "JobId=41 JobState=CANCELLED StartTime=2026-01-01T10:00:00 PreemptTime=2026-01-01T11:00:00",
        "slurm_load_jobs error: Invalid job id specified",
    ],
)
@pytest.mark.parametrize("numbers", [(signal.SIGTERM,), (signal.SIGINT,), (signal.SIGTERM, signal.SIGUSR2)])
def test_after_stop_never_starts_again_what_a_person_stopped(
    flag: StopFlag, scontrol: Path, monkeypatch: pytest.MonkeyPatch, numbers: tuple[signal.Signals, ...], shown: str
) -> None:
    monkeypatch.setenv("SHOWN", shown)
    for number in numbers:
        os.kill(os.getpid(), number)
    assert after_stop(flag, 3) == ""
    assert not scontrol.exists() or "requeue" not in scontrol.read_text()


def test_after_stop_starts_again_what_made_room_for_another_job(
    flag: StopFlag, scontrol: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOWN", f"{RUNNING} PreemptEligibleTime=2026-01-01T10:00:00 PreemptTime=2026-01-01T11:00:00")
    os.kill(os.getpid(), signal.SIGTERM)
    assert after_stop(flag, 3) == "; queued again (1 of at most 3)"
    assert scontrol.read_text() == "show job --oneliner 41\nrequeue 41\n"


def test_after_stop_without_a_scheduler_asks_nobody(flag: StopFlag, scontrol: Path) -> None:
    os.kill(os.getpid(), signal.SIGUSR2)
    assert after_stop(flag, 0) == ""
    assert not scontrol.exists()


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
def test_rank_0_alone_asks_for_the_next_start_and_only_it_goes_with_130(
    tmp_path: Path, scontrol: Path, phase: str
) -> None:
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
        processes[1].send_signal(signal.SIGUSR2)
        time.sleep(0.05)
        processes[0].send_signal(signal.SIGUSR2)
        if phase == "evaluating":  # then Slurm ends the others
            processes[0].wait(WAIT_SECONDS)
            processes[1].send_signal(signal.SIGTERM)

    codes = run_processes(micro_assignment(job, run.root, data, max_requeues=2), 2, time_is_up)
    assert codes[0] == 130, outputs(run)
    assert codes[1] == 0 or phase == "evaluating", outputs(run)
    assert scontrol.read_text() == "requeue 41\n"
    status = run.read_status()
    assert status is not None
    assert status.phase == "stopped"
    assert status.message.endswith("; queued again (1 of at most 2)")
