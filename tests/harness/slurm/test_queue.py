"""Slurm's queue as status, logs and cancel see it, with programs of the names that a test writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from detector.errors import SchedulerError
from detector.runs.folder import RunDir
from detector.storage.files import write_json
from harness.slurm.outputs import submitted_outputs
from harness.slurm.queue import SlurmQueue, cancel_queued, has_submissions
from harness.slurm.states import SchedulerState
from harness.slurm.submissions import Submission, transport_folder, write_submission
from harness.status.kinds import Seen
from harness.status.observe import NoScheduler, look_at_queue
from harness.status.state import decide
from harness.status.words import state_text
from support.micro import micro_job, write_experiments
from tests.command import invoke
from tests.squeue import squeue_line

LINES = squeue_line("17_0", "RUNNING", "None", "harness-abc-0") + squeue_line(
    "17_1", "PENDING", "Resources", "harness-abc-0"
)
OLD = 1_000.0  # long before any grace time


def program(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runs folder with one submission of three runs, and a squeue that knows two of them."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / "lines").write_text(LINES)
    program(programs, "squeue", f"cat {tmp_path}/lines")
    program(programs, "scancel", f'echo "$@" >> {tmp_path}/cancelled')
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    folder = tmp_path / "runs"
    entry = Submission(
        token="abc-0", cluster="mine", runs=("one", "two", "three"), time=OLD, code="c", state="submitted", job_id="17"
    )
    write_submission(folder, entry)
    return folder


def state(runs: Path, name: str) -> SchedulerState | None:
    return look_at_queue(runs).states(RunDir(runs / name))


def test_the_queue_says_what_runs_what_waits_for_what_and_what_is_gone(runs: Path) -> None:
    assert state(runs, "one") == SchedulerState("running")
    assert state(runs, "two") == SchedulerState("pending", "Resources")
    assert state(runs, "three") == SchedulerState("gone")
    assert state(runs, "never submitted") is None


def test_the_queue_says_how_often_a_run_was_queued_again(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text(
        squeue_line("17_0", "RUNNING", "None", "harness-abc-0", restarts=2)
        + squeue_line("17_1", "PENDING", "BeginTime", "harness-abc-0", restarts=1)
    )
    running, waiting = state(runs, "one"), state(runs, "two")
    assert running == SchedulerState("running", requeues=2)
    assert waiting == SchedulerState("pending", "BeginTime", requeues=1)
    assert state_text(decide(Seen(scheduler=running), OLD)) == "starting, requeued 2x"
    assert state_text(decide(Seen(scheduler=waiting), OLD)) == "requeued 1x (BeginTime: its start time is not reached)"


def test_accounts_say_how_a_job_ended_that_the_queue_has_no_more(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("")
    said = "17_0|COMPLETED|0:0\\n17_1|CANCELLED by 1000|0:15\\n17_2|OUT_OF_MEMORY|0:125\\n17_[3-9]|PENDING|0:0"
    program(tmp_path / "bin", "sacct", f'printf "%s " "$@" > {tmp_path}/asked\nprintf "{said}\\n"')
    queue = look_at_queue(runs)
    assert [queue.states(RunDir(runs / name)) for name in ("one", "two", "three")] == [
        SchedulerState("gone", "COMPLETED", exit_code=0),
        SchedulerState("gone", "CANCELLED by 1000", exit_code=128 + 15),
        SchedulerState("gone", "OUT_OF_MEMORY", exit_code=128 + 125),
    ]
    assert (tmp_path / "asked").read_text() == "-n -X -P -o JobID,State,ExitCode -j 17_0,17_1,17_2 "


def test_a_submission_whose_id_was_never_known_is_not_asked_for(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("")
    write_submission(runs, Submission(token="def-0", cluster="mine", runs=("four", "five"), time=OLD, code="c"))
    program(tmp_path / "bin", "sacct", f'printf "%s " "$@" > {tmp_path}/asked')
    assert state(runs, "four") == SchedulerState("gone")
    assert (tmp_path / "asked").read_text() == "-n -X -P -o JobID,State,ExitCode -j 17_0,17_1,17_2 "


def test_a_cluster_without_accounts_says_only_that_a_job_is_gone(runs: Path, tmp_path: Path) -> None:
    program(tmp_path / "bin", "sacct", "echo Slurm accounting storage is disabled >&2; exit 1")
    assert state(runs, "three") == SchedulerState("gone")


def test_a_queue_that_does_not_answer_makes_nothing_lost(runs: Path, tmp_path: Path) -> None:
    program(tmp_path / "bin", "squeue", "echo down >&2; exit 1")
    with pytest.raises(SchedulerError, match="squeue failed: down"):
        SlurmQueue(runs)
    answer = state(runs, "three")
    assert answer is not None
    assert (answer.phase, answer.reason, answer.job) == ("unknown", "squeue failed: down", "17_2")
    assert state(runs, "never submitted") is None


def test_without_submissions_slurm_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert not has_submissions(tmp_path)
    assert isinstance(look_at_queue(tmp_path), NoScheduler)
    assert not cancel_queued(tmp_path, {"one": "first"}, lambda _: None)


def test_outputs_are_those_of_the_runs_own_element(runs: Path) -> None:
    folder = transport_folder(runs, "abc-0")
    folder.mkdir(parents=True)
    for name in ("17_0_0_log.out", "17_1_0_log.out", "17_1_1_log.out", "17_1_submitted.pkl"):
        (folder / name).touch()
    assert [path.name for path in sorted(submitted_outputs(RunDir(runs / "two")))] == [
        "17_1_0_log.out",
        "17_1_1_log.out",
    ]
    assert submitted_outputs(RunDir(runs / "three")) == []


def test_cancel_names_the_elements_of_the_runs_and_no_others(runs: Path, tmp_path: Path) -> None:
    said: list[str] = []
    assert cancel_queued(runs, {"two": "the second", "three": "the third"}, said.append) == {"two"}
    assert (tmp_path / "cancelled").read_text().split() == ["17_1"]
    assert said == ["the second: cancelled job 17_1"]
    assert cancel_queued(runs, {"one": "the first"}, said.append)
    assert said[-1] == "the first: cancelled job 17_0, which saves and ends"
    assert cancel_queued(runs, {"three": "the third"}, said.append) == set()
    program(tmp_path / "bin", "scancel", "echo no >&2; exit 1")
    with pytest.raises(SchedulerError, match="scancel 17_1 failed: no"):
        cancel_queued(runs, {"two": "the second"}, said.append)


def test_a_cancel_that_hangs_is_one_clear_error(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin", "scancel", "exec sleep 60")
    monkeypatch.setattr("harness.slurm.queue.SQUEUE_SECONDS", 0.2)
    with pytest.raises(SchedulerError, match="scancel 17_1 failed: .*timed out"):
        cancel_queued(runs, {"two": "the second"}, lambda _: None)


def test_cancel_stops_what_runs_here_beside_what_is_queued(
    runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One row's seeds: the first in the queue, the second a process of this machine."""
    jobs = [micro_job(write_experiments(tmp_path / "experiments"), seed=0)]
    jobs.append(replace(jobs[0], train=replace(jobs[0].train, seed=1)))
    for job in jobs:
        write_json(RunDir(runs / job.train.id).job, job.train)
    (tmp_path / "lines").write_text(squeue_line("21", "RUNNING", "None", "harness-def-0"))
    entry = Submission(token="def-0", cluster="mine", runs=(jobs[0].train.id,), time=OLD, code="c", state="submitted")
    write_submission(runs, entry)
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(tmp_path / "experiments"))
    monkeypatch.setenv("HARNESS_RUNS", str(runs))
    monkeypatch.setenv("HARNESS_RESULTS", str(tmp_path / "results"))
    asked: list[str] = []
    monkeypatch.setattr(
        "harness.launch.cancel.stop_runs", lambda names, _: asked.extend(root.name for root in names) or True
    )
    invoke("cancel", "table2/L6", "--profile", "tiny")
    assert (tmp_path / "cancelled").read_text().split() == ["21"]
    assert asked == [jobs[1].train.id]
