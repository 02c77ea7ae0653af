"""The batch script with stand-ins for Slurm's programs: retries after failures, and what it notes instead of one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from detector.runs.folder import RunDir
from detector.runs.status import Status
from harness.slurm.clusters import Cluster
from harness.slurm.submissions import Submission, write_submission
from tests.harness.slurm.batch import test_job_script as scripts
from tests.harness.slurm.batch.test_job_script import Job, says

KILLED = f"{says(phase='training', progressed=1.5, time=9e9, pid=1)}\nkill -9 $$"
WHY = "a process was killed (signal 9)"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job that is retried once from one point, and its submission."""
    found = Job(tmp_path, cluster())
    entry = Submission(token="abc-0", cluster="c", runs=(found.run.name,), time=0.0, code="0", job_id="17")
    write_submission(tmp_path / "runs", entry)
    return found


def cluster(**changes: object) -> Cluster:
    values: dict = {"name": "c", "title": "t", "time_minutes": 60, "python": sys.executable, "max_retries": 1}
    return Cluster(**{**values, **changes})


def said(job: Job) -> Status:
    status = RunDir(job.run).read_status()
    assert status is not None
    return status


def ended_before(job: Job, *lines: str) -> None:
    job.folder.mkdir(parents=True)
    job.ends.write_text("".join(f"{line}\n" for line in lines))


def test_a_killed_process_is_tried_again_and_its_run_told(job: Job) -> None:
    words = f"{WHY}; retry 1 of at most 1 from here; queued again (1 of at most 100)"
    assert words in job.finish(KILLED)
    assert job.is_queued_again
    assert job.ends.read_text() == "retry \n"
    assert words in (job.run / "log.txt").read_text()
    assert said(job).phase == "training"  # the queue says the rest


def test_a_run_that_gets_no_further_is_given_up(job: Job) -> None:
    ended_before(job, "time ", "retry ")
    job.finish(KILLED)
    assert not job.is_queued_again
    assert said(job).phase == "failed"
    assert said(job).message == f"{WHY}; given up: no progress in 1 retry (max_retries in the cluster file)"


def test_a_run_that_got_further_since_its_last_failure_is_tried_again(job: Job) -> None:
    ended_before(job, "retry ")
    (job.run / "checkpoints").mkdir(parents=True)
    (job.run / "checkpoints" / "0000100.pt").touch()
    job.finish(KILLED)
    assert job.is_queued_again
    assert job.ends.read_text().splitlines()[-1] == "retry 0000100.pt"


def test_a_retry_that_slurm_refuses_in_every_way_is_a_failure(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "OTHER", '#!/bin/bash\necho "${0##*/} $*" >>"$CALLS"\nexit 1\n')
    job.finish(KILLED, refuse="requeue is disabled")
    assert any(call.startswith("sbatch ") for call in job.calls)
    assert said(job).phase == "failed"
    assert said(job).message == (
        f"{WHY}; retry 1 of at most 1 from here; it could not be queued again: requeue is disabled"
    )


def test_an_error_of_the_run_itself_ends_the_job_as_the_run_said_it(job: Job) -> None:
    message = "DataError: 17.jpg is no image"
    process = job.start(f"{says(phase='failed', time=9e9, pid=1, message=message)}\nexit 1")
    job.end(process)
    assert process.returncode == 1
    assert not job.is_queued_again
    assert said(job).message == message


def test_processes_that_somebody_ended_without_the_job_go_on(job: Job) -> None:
    assert "somebody ended the step, and not the job; retry 1" in job.finish(
        f"{says(phase='stopped', left='asked', time=9e9, pid=1)}\nexit 130"
    )
    assert job.is_queued_again


def test_a_python_that_is_not_there_is_told_in_the_jobs_output(job: Job) -> None:
    job.cluster = cluster(python="/no/such/python")
    process = job.start("exit 127")
    told = job.end(process)
    assert process.returncode == 1
    assert (
        "the processes ended with exit code 127, and 'env --block-signal=USR2 /no/such/python' could not say why"
        in told
    )
    assert not job.is_queued_again
