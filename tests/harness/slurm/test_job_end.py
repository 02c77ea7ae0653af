"""What the batch script does after processes that ended badly: another start, its limit, and its message."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from detector.runs.folder import RunDir
from detector.runs.status import Status
from detector.storage.files import write_json
from harness.slurm.batch.job_end import START, JobEnd, main, reason_to_retry
from harness.slurm.batch.script import Shape, parameters
from harness.slurm.clusters import Cluster
from harness.slurm.states import SchedulerState
from harness.slurm.submissions import Submission, transport_folder, write_submission
from harness.status.kinds import Seen
from harness.status.state import decide

JOB = "41_1"
STARTED = "2026-01-01T10:00:00"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The submission's folder as its second element sees it; scontrol is a stand-in that keeps what it was asked."""
    tools = tmp_path / "bin"
    tools.mkdir()
    tool = tools / "scontrol"
    tool.write_text(
        f'#!/bin/sh\n[ "$1" != show ] || {{ echo "JobId=42 JobState=$STATE StartTime=$START"; exit 0; }}\n'
        f'echo "$@" >> {tmp_path}/asked\n'
        '[ -z "$REFUSE" ] || { echo "$REFUSE" >&2; exit 1; }\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    for name, value in {
        "SLURM_ARRAY_JOB_ID": "41",
        "SLURM_ARRAY_TASK_ID": "1",
        "STATE": "RUNNING",
        "START": STARTED,
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("REFUSE", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    runs = tmp_path / "runs"
    entry = Submission(token="abc-0", cluster="c", runs=("other", "mine"), time=0.0, code="0", job_id="41")
    write_submission(runs, entry)
    the_run(runs).checkpoints.mkdir(parents=True)
    return transport_folder(runs, "abc-0")


def the_run(runs: Path) -> RunDir:
    return RunDir(runs / "mine")


def say(folder: Path, phase: str, message: str = "", job: str = JOB, after: float = 5.0) -> RunDir:
    """The run's own last heartbeat, so many seconds after the job's start."""
    run, said_at = the_run(folder.parents[1]), datetime.fromisoformat(STARTED).timestamp() + after
    write_json(run.status, Status(phase=phase, time=said_at, pid=1, message=message, job=job))  # type: ignore[arg-type]
    return run


def asked(folder: Path) -> list[str]:
    path = folder.parents[2] / "asked"
    return path.read_text().splitlines() if path.exists() else []


def said(run: RunDir) -> Status:
    status = run.read_status()
    assert status is not None
    return status


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (JobEnd(137, "RUNNING"), "a process was killed (signal 9)"),
        (JobEnd(134, "RUNNING", "RuntimeError: a consequence"), "a process was killed (signal 6)"),
        (JobEnd(143, "RUNNING"), "a process was killed (signal 15)"),
        (JobEnd(143, "RUNNING", "RuntimeError: of its own, for which srun ended the others"), None),
        (JobEnd(137, "RUNNING", "The loss is not finite in iterations 1 to 1"), None),
        (JobEnd(1, "RUNNING", "RuntimeError: NCCL error"), "network: RuntimeError: NCCL error"),
        (
            JobEnd(1, "RUNNING", "OSError: [Errno 116] Stale file handle"),
            "node: OSError: [Errno 116] Stale file handle",
        ),
        (JobEnd(1, "RUNNING", "", "DistNetworkError: the client socket"), "network: no message"),
        (JobEnd(1, "RUNNING", "The loss is not finite in iterations 1 to 1"), None),
        (JobEnd(1, "RUNNING", "torch.OutOfMemoryError: CUDA out of memory"), None),
        (JobEnd(1, "RUNNING", "", "ModuleNotFoundError: No module named 'x'"), None),
        (JobEnd(1, "RUNNING"), None),
        (JobEnd(130, "RUNNING"), None),  # it was asked to stop
        (JobEnd(0, "RUNNING"), None),
        (JobEnd(137, "CANCELLED"), None),
        (JobEnd(137, "COMPLETING"), None),
        (JobEnd(137, ""), None),  # Slurm does not answer: it may have been cancelled
    ],
)
def test_only_what_another_start_may_get_over_is_tried_again(end: JobEnd, reason: str | None) -> None:
    assert reason_to_retry(end) == reason


KILLED = "srun: error: n1: task 0: Killed\n"
EXITED = "srun: error: n2: task 1: Exited with exit code 1\n"
ENDS_OTHERS = "srun: launch/slurm: _step_signal: Terminating StepId=3.0\n"
TERMINATED = "srun: error: n2: tasks 1-2: Terminated\n"
CLOSED = "RuntimeError: Connection closed by peer"


@pytest.mark.parametrize(
    ("message", "srun", "reason"),
    [
        # The highest code is that of the process which srun ended for the killed one.
        (CLOSED, KILLED + ENDS_OTHERS + TERMINATED, "a process was killed (signal 9)"),
        # The other process noticed it before srun did.
        (CLOSED, EXITED + ENDS_OTHERS + KILLED, "a process was killed (signal 9)"),
        (CLOSED, EXITED + ENDS_OTHERS + TERMINATED, f"network: {CLOSED}"),
        ("RuntimeError: its own", EXITED + ENDS_OTHERS + TERMINATED, None),
        ("RuntimeError: its own", EXITED + ENDS_OTHERS + KILLED, None),  # it did not heed srun's SIGTERM
        ("DataError: 17.jpg is no image", KILLED + ENDS_OTHERS + TERMINATED, None),
        ("", "srun: error: n1: task 0: Segmentation fault (core dumped)\n", "a process was killed (signal 11)"),
    ],
)
def test_the_process_that_died_first_is_told_from_those_that_srun_ended_for_it(
    message: str, srun: str, reason: str | None
) -> None:
    assert [reason_to_retry(JobEnd(code, "RUNNING", message, srun=srun)) for code in (137, 143)] == [reason, reason]


def test_what_srun_said_of_an_earlier_start_is_not_of_this_one(folder: Path) -> None:
    run = say(folder, "failed", "RuntimeError: its own")
    folder.mkdir()
    (folder / f"{JOB}_0_log.out").write_text(f"{START}1\n{KILLED}{ENDS_OTHERS}{START}2\n{EXITED}{ENDS_OTHERS}")
    main(folder, 3, 100, 143)
    assert asked(folder) == []
    assert said(run).message == "RuntimeError: its own"


def test_a_killed_process_is_tried_again_and_its_run_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = say(folder, "training")
    main(folder, 3, 100, 137)
    assert asked(folder) == ["requeue 41_1"]
    words = "a process was killed (signal 9); queued again (1 of at most 100), retry 1 of at most 3 from here"
    assert words in capsys.readouterr().out
    assert words in run.log.read_text()
    assert said(run).phase == "training"  # the queue says the rest


def test_a_run_that_gets_no_further_is_given_up_and_one_that_does_is_not(folder: Path) -> None:
    run = say(folder, "training")
    for _ in range(3):
        main(folder, 2, 100, 137)
    assert len(asked(folder)) == 2
    assert said(run).phase == "failed"
    assert said(run).message == (
        "a process was killed (signal 9); given up: no progress in 2 retries (max_retries in the cluster file)"
    )
    state = decide(Seen(status=said(run), scheduler=SchedulerState("gone")), time.time())
    assert (state.kind, state.failure) == ("failed", "killed")
    (run.checkpoints / "0000100.pt").touch()
    main(folder, 2, 100, 137)
    assert len(asked(folder)) == 3


def test_retries_of_another_job_are_not_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    say(folder, "training")
    main(folder, 1, 100, 137)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "57")
    main(folder, 1, 100, 137)
    assert asked(folder) == ["requeue 41_1", "requeue 57_1"]


def test_an_error_of_the_run_itself_is_left_as_it_said_it(folder: Path) -> None:
    run = say(folder, "failed", "DataError: 17.jpg is no image")
    before = run.status.read_bytes()
    main(folder, 3, 100, 1)
    assert asked(folder) == []
    assert run.status.read_bytes() == before


def test_the_first_failure_of_another_process_decides(folder: Path) -> None:
    run = say(folder, "training")
    write_json(run.failure(1), Status(phase="failed", time=1.0, pid=1, message="DataError: 17.jpg is no image"))
    main(folder, 3, 100, 1)
    assert asked(folder) == []


def test_the_message_of_an_earlier_start_of_the_job_does_not_count(folder: Path) -> None:
    run = say(folder, "failed", "torch.distributed.DistNetworkError: no route", after=-60.0)
    folder.mkdir()
    (folder / f"{JOB}_0_log.out").write_text(f"{START}1\n{START}2\nModuleNotFoundError: No module named 'x'\n")
    before = run.status.read_bytes()
    main(folder, 3, 100, 1)
    assert asked(folder) == []  # it would come again
    assert run.status.read_bytes() == before


def test_the_message_of_an_earlier_job_does_not_count(folder: Path) -> None:
    say(folder, "failed", "DataError: 17.jpg is no image", job="40")
    folder.mkdir()
    (folder / f"{JOB}_0_log.out").write_text("torch.distributed.DistNetworkError: no route\n")
    main(folder, 3, 100, 1)
    assert asked(folder) == ["requeue 41_1"]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"SLURM_RESTART_COUNT": "100"}, "not queued again: it was 100 times"),
        ({"REFUSE": "requeue is disabled"}, "it could not be queued again: requeue is disabled"),
    ],
)
def test_a_retry_that_cannot_be_is_a_failure(
    folder: Path, environment: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    run = say(folder, "training")
    main(folder, 3, 100, 137)
    assert said(run).phase == "failed"
    assert words in said(run).message


def test_a_job_that_slurm_ended_for_good_is_noted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE", "TIMEOUT")
    run = say(folder, "training")
    main(folder, 3, 100, 143)
    assert asked(folder) == []
    assert said(run).message == "Slurm ended the job: TIMEOUT"


def test_the_script_calls_it_with_the_code_of_processes_that_fail(folder: Path, tmp_path: Path) -> None:
    """The set-up lines in a real shell, with a program in srun's place that dies of a signal."""
    say(folder, "training")
    cluster = Cluster(name="c", title="t", time_minutes=9, max_retries=2, python=sys.executable)
    options = parameters(cluster, Shape(1, 1, False, 1, None), token="abc-0", code=tmp_path, folder=folder)
    lines = options["setup"]
    for processes, count in (("true", 0), ("sh -c 'kill -9 $$'", 1)):
        script = "\n".join(["#!/bin/bash", *lines, processes])
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
        done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == (137 if count else 0), done.stderr
        assert done.stdout.startswith(f"{START}1\n")
        assert asked(folder) == ["requeue 41_1"] * count, done.stderr


def test_the_reason_is_written_although_slurm_ends_the_job_that_it_queues_again(folder: Path, tmp_path: Path) -> None:
    run = say(folder, "training")
    tool = tmp_path / "bin" / "scontrol"
    tool.write_text(tool.read_text() + "kill -TERM 0  # all processes of the job\n")
    cluster = Cluster(name="c", title="t", time_minutes=9, python=sys.executable)
    options = parameters(cluster, Shape(1, 1, False, 1, None), token="abc-0", code=tmp_path, folder=folder)
    script = "\n".join(["#!/bin/bash", *options["setup"], "sh -c 'kill -9 $$'"])
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = ["bash", "-c", script]
    subprocess.run(command, env=environment, capture_output=True, check=False, start_new_session=True)
    assert asked(folder) == ["requeue 41_1"]
    assert "a process was killed (signal 9); queued again (1 of at most 100)" in run.log.read_text()


@pytest.mark.parametrize(
    ("again", "message"),
    [
        (True, "CUDA error: uncorrectable ECC error encountered"),
        (True, "Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7"),
        (True, "Failed to initialize NVML: Driver/library version mismatch"),
        (False, "CUDA error: no kernel image is available for execution on the device"),
        (False, "CUDA error: CUDA driver version is insufficient for CUDA runtime version"),
        (False, "CUDA error: an illegal memory access was encountered"),
        (False, "CUDA out of memory. Tried to allocate 2.50 GiB"),
    ],
)
def test_a_broken_gpu_is_worth_another_start_and_a_program_or_a_build_that_does_not_fit_is_not(
    again: bool, message: str
) -> None:
    assert (reason_to_retry(JobEnd(1, "RUNNING", message)) is not None) == again
