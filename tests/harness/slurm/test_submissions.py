"""Submissions that survive crashes, reservations of runs, and the queue; squeue is a stand-in on the PATH."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from detector.errors import SchedulerError
from detector.runs.folder import RunDir
from detector.runs.status import Status
from detector.storage.files import write_json
from harness.slurm.commands import QueuedJob, read_queue
from harness.slurm.queue import reconcile
from harness.slurm.reservations import GRACE_SECONDS, holder_of, is_busy, release, reservation_file, reserve
from harness.slurm.submissions import Submission, next_token, read_submissions, register, write_submission
from tests.squeue import squeue_line

NOW = 1_000_000.0
RUNNING = squeue_line("41_0", "RUNNING", "None", "harness-a-0")


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the stand-in answers with; its arguments are in ``asked`` beside it."""
    folder, lines = tmp_path / "bin", tmp_path / "queue.txt"
    folder.mkdir()
    tool = folder / "squeue"
    tool.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\ncat {lines}\n')
    tool.chmod(0o755)
    lines.write_text("")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return lines


def submission(
    token: str = "a-0", runs: tuple[str, ...] = ("r0", "r1"), age: float = 0.0, **changes: object
) -> Submission:
    values: dict = {"token": token, "cluster": "c", "runs": runs, "time": NOW - age, "code": "0", **changes}
    return Submission(**values)


def test_read_queue_reads_elements_states_and_reasons(queue: Path) -> None:
    queue.write_text(
        squeue_line("41_0", "RUNNING", "None", "harness-a-0", restarts=2)
        + squeue_line("41_1", "PENDING", "Nodes required (for job, DOWN)", "harness-a-0")
        + squeue_line("42", "PENDING", "Priority", "harness-a-00")
        + "squeue says hello\n"
        + squeue_line("43", "PENDING", "BeginTime", "harness-b-0")
    )
    assert read_queue(["harness-a-0", "harness-b-0"]) == [
        QueuedJob("41_0", "RUNNING", "None", "harness-a-0", restarts=2),
        QueuedJob("41_1", "PENDING", "Nodes required (for job, DOWN)", "harness-a-0"),
        QueuedJob("43", "PENDING", "BeginTime", "harness-b-0"),
    ]
    asked = (queue.parent / "asked").read_text()
    assert asked == "-h -r -O JobArrayID:48,State:24,RestartCnt:16,Name:64,Reason:160 --name=harness-a-0,harness-b-0\n"


def test_a_queue_that_cannot_be_read_is_an_error_and_never_empty(queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = queue.parent / "bin" / "squeue"
    tool.write_text("#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2\nexit 1\n")
    with pytest.raises(SchedulerError, match="Unable to contact slurm controller"):
        read_queue(["harness-a-0"])
    assert read_queue([]) == []  # nobody is asked about nothing
    monkeypatch.setenv("PATH", str(queue.parent))
    with pytest.raises(SchedulerError, match=r"no Slurm here.*--dry-run"):
        read_queue(["harness-a-0"])


def test_reconcile_recovers_the_job_of_a_command_that_died(queue: Path, tmp_path: Path) -> None:
    write_submission(tmp_path, submission(age=10 * GRACE_SECONDS))
    queue.write_text(RUNNING + squeue_line("41_1", "PENDING", "Resources", "harness-a-0"))
    queued, recovered = reconcile(tmp_path, now=NOW)
    assert {run: str(where) for run, where in queued.items()} == {
        "r0": "job 41_0, running",
        "r1": "job 41_1, pending (Resources)",
    }
    assert [item.job_id for item in recovered] == ["41"]
    (noted,) = read_submissions(tmp_path)
    assert (noted.state, noted.job_id) == ("submitted", "41")
    assert reconcile(tmp_path, now=NOW)[1] == []  # once


def test_reconcile_gives_a_submission_on_its_way_time_and_then_forgets_it(queue: Path, tmp_path: Path) -> None:
    entry = submission()
    write_submission(tmp_path, entry)
    assert reserve(RunDir(tmp_path / "r0"), entry.token, living=set())
    queued, _ = reconcile(tmp_path, now=NOW + GRACE_SECONDS - 1)
    assert {run: str(where) for run, where in queued.items()} == {"r0": "being submitted", "r1": "being submitted"}
    queued, _ = reconcile(tmp_path, now=NOW + GRACE_SECONDS + 1)
    assert queued == {}
    assert read_submissions(tmp_path)[0].state == "ended"
    assert holder_of(RunDir(tmp_path / "r0")) is None


def test_reconcile_releases_the_run_of_an_element_that_ended(queue: Path, tmp_path: Path) -> None:
    entry = submission(state="submitted", job_id="41")
    write_submission(tmp_path, entry)
    for run in entry.runs:
        assert reserve(RunDir(tmp_path / run), entry.token, living=set())
    queue.write_text(squeue_line("41_1", "RUNNING", "None", "harness-a-0"))
    queued, _ = reconcile(tmp_path, now=NOW)
    assert set(queued) == {"r1"}
    assert holder_of(RunDir(tmp_path / "r0")) is None
    assert holder_of(RunDir(tmp_path / "r1")) == "a-0"
    assert read_submissions(tmp_path)[0].state == "submitted"


def test_reconcile_without_writing_changes_nothing(queue: Path, tmp_path: Path) -> None:
    write_submission(tmp_path, submission(age=10 * GRACE_SECONDS))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    reconcile(tmp_path, now=NOW, write=False)
    queue.write_text(RUNNING)
    assert set(reconcile(tmp_path, now=NOW, write=False)[0]) == {"r0"}
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before


def test_reconcile_asks_no_more_about_what_has_ended(queue: Path, tmp_path: Path) -> None:
    write_submission(tmp_path, submission(state="ended"))
    assert reconcile(tmp_path, now=NOW) == ({}, [])
    assert not (tmp_path / "asked").exists()


def test_a_run_is_reserved_by_one_living_submission(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    assert reserve(run, "a-0", living=set())
    assert reserve(run, "a-0", living={"a-0"})  # again by the same
    assert not reserve(run, "b-0", living={"a-0", "b-0"})
    assert holder_of(run) == "a-0"
    assert reserve(run, "b-0", living={"b-0"})  # a-0 has ended
    release(run, "a-0")
    assert holder_of(run) == "b-0"
    release(run, "b-0")
    assert not reservation_file(run).exists()
    assert list(run.root.iterdir()) == []


def test_next_token_counts_what_was_submitted_before(tmp_path: Path) -> None:
    first = next_token(tmp_path, b"content")
    assert first == next_token(tmp_path, b"content")
    write_submission(tmp_path, submission(token=first))
    assert next_token(tmp_path, b"content") == first.replace("-0", "-1")
    assert next_token(tmp_path, b"other").split("-")[0] != first.split("-")[0]


def test_register_refuses_a_token_that_another_command_has(tmp_path: Path) -> None:
    register(tmp_path, submission(runs=("r0",)))
    with pytest.raises(SchedulerError, match="Another command submits the same runs"):
        register(tmp_path, submission(runs=("r1",)))
    (entry,) = read_submissions(tmp_path)
    assert entry.runs == ("r0",)
    assert len(list((tmp_path / "submissions").iterdir())) == 1


def test_is_busy_by_lock_or_by_a_fresh_heartbeat(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    assert not is_busy(run)
    write_json(run.status, Status(phase="training", time=NOW, pid=1))
    assert is_busy(run, now=NOW + GRACE_SECONDS - 1)
    assert not is_busy(run, now=NOW + GRACE_SECONDS + 1)
    write_json(run.status, Status(phase="training", time=NOW, pid=1, job="41_0"))
    assert not is_busy(run, now=NOW)  # the queue was asked, and has it no more
    write_json(run.status, Status(phase="failed", time=time.time(), pid=1))
    assert not is_busy(run)
    with run.lock():
        assert is_busy(run)
