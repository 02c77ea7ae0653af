"""What the batch script is told of processes that ended badly: whether another start may help, and what is noted."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from detector.runs.folder import RunDir
from detector.runs.status import Status
from detector.storage.files import write_json
from harness.slurm.batch.job_end import START, JobEnd, main, reason_to_retry
from harness.slurm.states import SchedulerState
from harness.slurm.submissions import Submission, transport_folder, write_submission
from harness.status.kinds import Seen
from harness.status.state import decide

PROJECT = Path(__file__).resolve().parents[4]
JOB = "41_1"
BEGAN = 1_000_000.0
KILLED_9 = "retry: a process was killed (signal 9)"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The submission's folder as its second element sees it. There is no program of Slurm's, as in a container."""
    monkeypatch.setenv("PATH", "")
    runs = tmp_path / "runs"
    entry = Submission(token="abc-0", cluster="c", runs=("other", "mine"), time=0.0, code="0", job_id="41")
    write_submission(runs, entry)
    the_run(runs).checkpoints.mkdir(parents=True)
    return transport_folder(runs, "abc-0")


def the_run(runs: Path) -> RunDir:
    return RunDir(runs / "mine")


def says(folder: Path, phase: str, message: str = "", job: str = JOB, after: float = 5.0) -> RunDir:
    """The run's own last heartbeat, so many seconds after the job's start."""
    run = the_run(folder.parents[1])
    status = Status(phase=phase, time=BEGAN + after, pid=1, message=message, job=job)  # type: ignore[arg-type]
    write_json(run.status, status)
    return run


def prints(folder: Path, text: str, rank: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{JOB}_{rank}_log.out").write_text(text)


@pytest.fixture
def judged(folder: Path, capsys: pytest.CaptureFixture[str]) -> Judged:
    return Judged(folder, capsys)


class Judged:
    """What ``judge`` prints for an exit code."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capsys = capsys

    def __call__(self, code: int, job: str = JOB) -> str:
        main(["judge", str(self.folder), "1", job, str(code), str(BEGAN)])
        return self.capsys.readouterr().out.rstrip("\n")


def said(run: RunDir) -> Status:
    status = run.read_status()
    assert status is not None
    return status


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (JobEnd(137), "a process was killed (signal 9)"),
        (JobEnd(134, "RuntimeError: a consequence"), "a process was killed (signal 6)"),
        (JobEnd(143), "a process was killed (signal 15)"),
        (JobEnd(143, "RuntimeError: of its own, for which srun ended the others"), None),
        (JobEnd(137, "The loss is not finite in iterations 1 to 1"), None),
        (JobEnd(1, "RuntimeError: NCCL error"), "network: RuntimeError: NCCL error"),
        (JobEnd(1, "OSError: [Errno 116] Stale file handle"), "node: OSError: [Errno 116] Stale file handle"),
        (JobEnd(1, "", "DistNetworkError: the client socket"), "network: no message"),
        (JobEnd(1, "The loss is not finite in iterations 1 to 1"), None),
        (JobEnd(1, "torch.OutOfMemoryError: CUDA out of memory"), None),
        (JobEnd(1, "", "ModuleNotFoundError: No module named 'x'"), None),
        (JobEnd(1), None),
        (JobEnd(0), None),
        # The script asks only where nobody ended the job: then somebody ended its processes alone.
        (JobEnd(130), "somebody ended the step, and not the job"),
    ],
)
def test_only_what_another_start_may_get_over_is_tried_again(end: JobEnd, reason: str | None) -> None:
    assert reason_to_retry(end) == reason


KILLED = "srun: error: n1: task 0: Killed\n"
EXITED = "srun: error: n2: task 1: Exited with exit code 1\n"
ENDS_OTHERS = "srun: launch/slurm: _step_signal: Terminating StepId=3.0\n"
TERMINATED = "srun: error: n2: tasks 1-2: Terminated\n"
CLOSED = "RuntimeError: Connection closed by peer"
STEP_CANCELLED = "slurmstepd-n1: error: *** STEP 3.0 ON n1 CANCELLED AT 2030-01-01T10:00:00 ***\n"


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
    assert [reason_to_retry(JobEnd(code, message, srun=srun)) for code in (137, 143)] == [reason, reason]


@pytest.mark.parametrize(
    ("srun", "reason"),
    [
        (STEP_CANCELLED + TERMINATED, "somebody ended the step, and not the job"),
        (KILLED + STEP_CANCELLED, "a process was killed (signal 9)"),  # srun cancels the step of the others
        (STEP_CANCELLED.replace(" ***", " DUE TO NODE FAILURE ***") + KILLED, "a process was killed (signal 9)"),
    ],
)
def test_a_step_that_somebody_ended_is_told_from_one_that_a_node_ended(srun: str, reason: str) -> None:
    assert reason_to_retry(JobEnd(143, srun=srun)) == reason


NODE_TOO_SLOW = """\
srun: error: Task launch for StepId=3.0 failed on node n2: Job credential expired
srun: error: Application launch failed: Job credential expired
srun: Job step aborted: Waiting up to 12 seconds for job step to finish.
"""
EXPIRED = "Slurm could not start the processes: Job credential expired"


@pytest.mark.parametrize(
    ("code", "srun", "reason"),
    [
        (167, NODE_TOO_SLOW, EXPIRED),
        (137, NODE_TOO_SLOW + STEP_CANCELLED + KILLED + ENDS_OTHERS, EXPIRED),  # srun ends what it has started
        (
            1,
            "srun: error: Unable to create step for job 3: Socket timed out on send/recv operation\n",
            "Slurm could not start the processes: Socket timed out on send/recv operation",
        ),
        (1, "srun: error: Unable to create step for job 3: Requested node configuration is not available\n", None),
        (1, "srun: error: Task launch for StepId=3.0 failed on node n1: Requested GRES option unsupported\n", None),
        (167, "", None),  # 39 is no signal that ends processes
    ],
)
def test_processes_that_slurm_could_not_start_are_tried_again(code: int, srun: str, reason: str | None) -> None:
    assert reason_to_retry(JobEnd(code, srun=srun)) == reason


def test_what_srun_said_of_an_earlier_start_is_not_of_this_one(folder: Path, judged: Judged) -> None:
    run = says(folder, "failed", "RuntimeError: its own")
    prints(folder, f"{START}1\n{KILLED}{ENDS_OTHERS}{START}2\n{EXITED}{ENDS_OTHERS}")
    assert judged(143) == "end: exit code 143"
    assert said(run).message == "RuntimeError: its own"


def test_a_killed_process_is_told_to_the_script_and_not_to_the_run(folder: Path, judged: Judged) -> None:
    run = says(folder, "training")
    before = run.status.read_bytes()
    assert judged(137) == KILLED_9
    assert run.status.read_bytes() == before  # the queue says the rest


def test_a_reason_of_several_lines_is_told_in_one(folder: Path, judged: Judged) -> None:
    says(folder, "failed", "RuntimeError: NCCL error\n  in: the second line")
    assert judged(1) == "retry: network: RuntimeError: NCCL error in: the second line"


def test_an_error_of_the_run_itself_is_left_as_it_said_it(folder: Path, judged: Judged) -> None:
    run = says(folder, "failed", "DataError: 17.jpg is no image")
    before = run.status.read_bytes()
    assert judged(1) == "end: exit code 1"
    assert run.status.read_bytes() == before


def test_the_first_failure_of_another_process_decides(folder: Path, judged: Judged) -> None:
    run = says(folder, "training")
    write_json(run.failure(1), Status(phase="failed", time=1.0, pid=1, message="DataError: 17.jpg is no image"))
    assert judged(1) == "end: exit code 1"


@pytest.mark.parametrize("after", [4.0, 6.0])
def test_a_process_that_lost_the_one_that_failed_is_no_reason_to_try_again(
    folder: Path, judged: Judged, after: float
) -> None:
    """Whichever process failed, and whichever of them had its word first."""
    lost = "RuntimeError: [gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer."
    run = says(folder, "failed", "ModuleNotFoundError: No module named 'x'")
    write_json(run.failure(1), Status(phase="failed", time=BEGAN + after, pid=1, message=lost))
    assert judged(1) == "end: exit code 1"
    says(folder, "failed", lost)
    other = Status(phase="failed", time=BEGAN + after, pid=1, message="DataError: 17.jpg is no image")
    write_json(run.failure(1), other)
    assert judged(1) == "end: exit code 1"
    write_json(run.failure(1), Status(phase="failed", time=BEGAN + after, pid=1, message=lost))
    assert judged(1) == f"retry: network: {lost}"


def test_the_message_of_an_earlier_start_of_the_job_does_not_count(folder: Path, judged: Judged) -> None:
    run = says(folder, "failed", "torch.distributed.DistNetworkError: no route", after=-60.0)
    prints(folder, f"{START}1\n{START}2\nModuleNotFoundError: No module named 'x'\n")
    before = run.status.read_bytes()
    assert judged(1) == "end: exit code 1"  # it would come again
    assert run.status.read_bytes() == before


def test_the_message_of_an_earlier_job_does_not_count(folder: Path, judged: Judged) -> None:
    says(folder, "failed", "DataError: 17.jpg is no image", job="40")
    prints(folder, "torch.distributed.DistNetworkError: no route\n")
    assert judged(1) == "retry: network: no message"


def test_a_run_that_could_not_say_why_it_ended_is_noted_with_the_last_line_printed(
    folder: Path, judged: Judged
) -> None:
    run = the_run(folder.parents[1])
    prints(folder, f"{START}1\nsrun: a line\n/job.sh: line 7: apptainer: command not found\n\n")
    assert judged(127) == "end: exit code 127"
    assert (said(run).phase, said(run).job) == ("failed", JOB)
    assert said(run).message == (
        "the processes ended with exit code 127: /job.sh: line 7: apptainer: command not found"
    )


def test_a_run_that_hung_in_training_is_noted_too(folder: Path, judged: Judged) -> None:
    run = says(folder, "training")
    prints(folder, f"{START}1\n")
    assert judged(1) == "end: exit code 1"
    assert (said(run).phase, said(run).message) == ("failed", "the processes ended with exit code 1")


def test_a_heartbeat_that_cannot_be_read_is_written_anew(folder: Path, judged: Judged) -> None:
    run = the_run(folder.parents[1])
    run.status.write_text("{")
    assert judged(1) == "end: exit code 1"
    assert said(run).phase == "failed"


def test_what_the_script_gives_up_is_written_into_the_run(folder: Path) -> None:
    run = says(folder, "training")
    told = "a process was killed (signal 9); given up: no progress in 2 retries (max_retries in the cluster file)"
    main(["fail", str(folder), "1", JOB, told])
    assert (said(run).phase, said(run).message, said(run).job) == ("failed", told, JOB)
    assert said(run).time > BEGAN
    state = decide(Seen(status=said(run), scheduler=SchedulerState("gone")), time.time())
    assert (state.kind, state.failure) == ("failed", "killed")


def test_a_run_without_a_folder_is_noted_in_a_new_one(folder: Path) -> None:
    main(["fail", str(folder), "0", "41_0", "died at once"])
    assert said(RunDir(folder.parents[1] / "other")).message == "died at once"


def test_the_script_calls_it_as_a_module_without_torch(folder: Path) -> None:
    says(folder, "training")
    module = "harness.slurm.batch.job_end"
    code = f"import runpy, sys; runpy.run_module({module!r}, run_name='__main__'); assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code, "judge", str(folder), "1", JOB, "137", "1000000"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"{KILLED_9}\n"), done.stderr


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
    assert (reason_to_retry(JobEnd(1, message)) is not None) == again
