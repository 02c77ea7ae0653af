"""Slurm's queue as status, logs and cancel see it, with stand-ins for Slurm's programs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from detector.errors import SchedulerError
from detector.runs.folder import RunDir
from detector.storage.files import write_json
from harness.slurm.cancel import cancel_queued
from harness.slurm.outputs import submitted_outputs
from harness.slurm.queue import SlurmQueue, has_submissions
from harness.slurm.states import SchedulerState
from harness.slurm.submissions import Options, Submission, transport_folder, write_submission
from harness.status.kinds import Seen
from harness.status.observe import NoScheduler, look_at_queue
from harness.status.state import decide
from harness.status.words import state_text
from support.micro import micro_job, write_experiments
from tests.command import invoke
from tests.squeue import Programs, squeue_line

LINES = (
    squeue_line("17_0", "RUNNING", "None", "harness-abc-0"),
    squeue_line("17_1", "PENDING", "Resources", "harness-abc-0"),
)
OLD = 1_000.0  # long before any grace time


@pytest.fixture
def runs(tmp_path: Path, programs: Programs) -> Path:
    """A runs folder with one submission of three runs, and a squeue that knows two of them."""
    programs.queue(*LINES)
    write(tmp_path / "runs")
    return tmp_path / "runs"


def write(folder: Path, /, **changes: Any) -> None:
    values: dict[str, Any] = {
        **{"token": "abc-0", "cluster": "mine", "runs": ("one", "two", "three"), "time": OLD, "code": "c"},
        **{"state": "submitted", "job_id": "17", "slurm": "here", "user": "me", **changes},
    }
    write_submission(folder, Submission(**values))


def state(runs: Path, name: str) -> SchedulerState | None:
    return look_at_queue(runs).states(RunDir(runs / name))


def known(runs: Path, name: str) -> SchedulerState:
    found = state(runs, name)
    assert found is not None
    return found


def at(phase: Any, job: str, reason: str = "", **changes: Any) -> SchedulerState:
    return SchedulerState(phase, reason, job=job, cluster="mine", **changes)


def test_the_queue_says_what_runs_what_waits_for_what_and_what_is_gone(runs: Path) -> None:
    assert state(runs, "one") == at("running", "17_0")
    assert state(runs, "two") == at("pending", "17_1", "Resources")
    assert state(runs, "three") == at("gone", "17_2")
    assert state(runs, "never submitted") is None


def test_a_submission_of_an_older_version_is_looked_up_too(runs: Path) -> None:
    write(runs, slurm="", user="")
    assert state(runs, "one") == at("running", "17_0")
    assert state(runs, "three") == at("gone", "17_2")


def test_the_queue_names_the_cluster_as_the_command_was_given_it(runs: Path) -> None:
    write(runs, options=Options(profile="paper", cluster="/home/me/mine.yaml"))
    assert known(runs, "one").cluster == "/home/me/mine.yaml"


def test_the_queue_says_how_often_a_run_was_queued_again(runs: Path, programs: Programs) -> None:
    programs.queue(
        squeue_line("17_0", "RUNNING", "None", "harness-abc-0", restarts=2),
        squeue_line("17_1", "PENDING", "BeginTime", "harness-abc-0", restarts=1),
    )
    running, waiting = state(runs, "one"), state(runs, "two")
    assert running == at("running", "17_0", requeues=2)
    assert waiting == at("pending", "17_1", "BeginTime", requeues=1)
    assert state_text(decide(Seen(scheduler=running), OLD)) == "starting, requeued 2x"
    assert state_text(decide(Seen(scheduler=waiting), OLD)) == "requeued 1x (BeginTime: its start time is not reached)"


@pytest.mark.parametrize(
    ("word", "reason", "expected"),
    [
        ("PENDING", "JobHeldUser", ("held", "JobHeldUser")),
        ("PENDING", "JobHeldAdmin", ("held", "JobHeldAdmin")),
        ("REQUEUE_HOLD", "launch failed requeued held", ("held", "launch failed requeued held")),
        ("SPECIAL_EXIT", "None", ("held", "SPECIAL_EXIT")),
        ("CONFIGURING", "None", ("pending", "configuring")),
        ("SUSPENDED", "None", ("pending", "suspended")),
        (
            "PENDING",
            "Nodes required for job are DOWN, DRAINED",
            ("pending", "Nodes required for job are DOWN, DRAINED"),
        ),
        ("COMPLETING", "None", ("running", "")),
        ("A_NEW_STATE", "None", ("running", "")),
    ],
)
def test_every_state_of_a_job_in_the_queue_has_its_phase(
    runs: Path, programs: Programs, word: str, reason: str, expected: tuple[str, str]
) -> None:
    programs.queue(squeue_line("17_0", word, reason, "harness-abc-0"))
    assert (known(runs, "one").phase, known(runs, "one").reason) == expected


@pytest.mark.parametrize(
    ("word", "cause"),
    [("COMPLETED", "completed"), ("TIMEOUT", "time"), ("PREEMPTED", "preempted"), ("OUT_OF_MEMORY", "memory")],
)
def test_a_job_that_squeue_shows_for_minutes_after_its_end_is_gone_with_its_cause(
    runs: Path, programs: Programs, word: str, cause: str
) -> None:
    programs.queue(squeue_line("17_0", word, "None", "harness-abc-0"))
    assert state(runs, "one") == at("gone", "17_0", word, cause=cause)


def test_accounts_say_how_a_job_ended_that_the_queue_has_no_more(runs: Path, programs: Programs) -> None:
    programs.queue()
    programs.accounts(
        *("17_0|COMPLETED|0:0", "17_1|CANCELLED by 1000|0:15", "17_2|OUT_OF_MEMORY|0:125", "17_[3-9]|PENDING|0:0")
    )
    queue = look_at_queue(runs)
    assert [queue.states(RunDir(runs / name)) for name in ("one", "two", "three")] == [
        at("gone", "17_0", "COMPLETED", exit_code=0, cause="completed"),
        at("gone", "17_1", "CANCELLED by 1000", exit_code=128 + 15, cause="cancelled"),
        at("gone", "17_2", "OUT_OF_MEMORY", exit_code=128 + 125, cause="memory"),
    ]
    assert programs.calls_of("sacct") == ["-n -X -P -o JobID,State,ExitCode -j 17_0,17_1,17_2"]


def test_a_submission_whose_id_was_never_known_is_not_asked_for(runs: Path, programs: Programs) -> None:
    programs.queue()
    write(runs, token="def-0", runs=("four", "five"), state="submitting", job_id=None)
    assert state(runs, "four") == at("gone", "")
    assert programs.calls_of("sacct") == ["-n -X -P -o JobID,State,ExitCode -j 17_0,17_1,17_2"]


def test_a_cluster_without_accounts_says_only_that_a_job_is_gone(runs: Path, programs: Programs) -> None:
    programs.fail("sacct", "Slurm accounting storage is disabled")
    assert state(runs, "three") == at("gone", "17_2")


def test_a_job_that_the_accounts_have_as_running_is_not_gone(runs: Path, programs: Programs) -> None:
    programs.accounts("17_2|RUNNING|0:0")
    assert state(runs, "three") == at("unknown", "17_2", "squeue does not show it, and sacct says RUNNING.")


def test_what_squeue_saw_ending_has_ended_although_the_accounts_are_behind(runs: Path, programs: Programs) -> None:
    programs.queue(squeue_line("17_2", "FAILED", "NonZeroExitCode", "harness-abc-0"))
    programs.accounts("17_2|RUNNING|0:0")
    assert state(runs, "three") == at("gone", "17_2", "FAILED", cause="failed")


def test_a_queue_that_does_not_answer_makes_nothing_lost(runs: Path, programs: Programs) -> None:
    before = time.time()
    assert known(runs, "one").seen is None
    programs.fail("squeue", "down")
    assert SlurmQueue(runs).problems == ["squeue failed: down."]
    found = known(runs, "two")
    assert (found.phase, found.reason) == ("unknown", "squeue failed: down. Last seen: pending (Resources).")
    assert found.job == "17_1"
    assert found.seen is not None
    assert before <= found.seen <= time.time()
    assert (known(runs, "three").phase, known(runs, "three").reason) == ("unknown", "squeue failed: down.")
    assert state(runs, "never submitted") is None
    write(runs, state="ended")
    assert known(runs, "three").phase == "gone"


def test_a_job_of_another_slurm_is_not_gone(runs: Path, programs: Programs) -> None:
    """Two clusters share the runs folder; the job's number means another job here."""
    write(runs, slurm="there")
    found = known(runs, "one")
    assert (found.phase, found.reason) == ("unknown", "It is a job of the cluster there; this machine reaches here.")
    assert programs.calls_of("squeue") == []
    assert programs.calls_of("sacct") == []


def test_each_slurm_is_asked_with_its_own_configuration_file(runs: Path, programs: Programs) -> None:
    write(runs, token="def-0", runs=("four",), job_id="17", slurm="there", conf="/etc/there.conf")
    programs.put("scontrol", 'case "$SLURM_CONF" in "") echo ClusterName = here;; *) echo ClusterName = there;; esac')
    there = squeue_line("17", "PENDING", "Priority", "harness-def-0").rstrip("\n")
    programs.put(
        "squeue", f'case "$SLURM_CONF" in /etc/there.conf) echo "{there}";; *) cat {programs.root}/queue;; esac'
    )
    assert known(runs, "one").phase == "running"
    assert (known(runs, "four").phase, known(runs, "four").reason) == ("pending", "Priority")


def test_jobs_of_one_number_in_two_slurms_are_two_jobs(runs: Path, programs: Programs) -> None:
    write(runs, runs=("one",))
    write(runs, token="def-0", runs=("four",), job_id="17", slurm="there", conf="/etc/there.conf")
    programs.put("scontrol", 'case "$SLURM_CONF" in "") echo ClusterName = here;; *) echo ClusterName = there;; esac')
    programs.put("sacct", 'case "$SLURM_CONF" in "") echo "17|COMPLETED|0:0";; *) echo "17|TIMEOUT|0:0";; esac')
    programs.queue()
    assert (known(runs, "one").cause, known(runs, "four").cause) == ("completed", "time")


def test_a_job_of_another_user_is_not_gone_where_jobs_are_private(runs: Path, programs: Programs) -> None:
    write(runs, user="you")
    programs.queue()
    programs.config(ClusterName="here", PrivateData="accounts,jobs")
    assert state(runs, "one") == at(
        "unknown", "17_0", "you's jobs are not shown to others here (PrivateData).", user="you"
    )
    write(runs, user="me")
    assert state(runs, "one") == at("gone", "17_0")


def test_a_job_of_another_user_is_asked_for_and_named(runs: Path, programs: Programs) -> None:
    write(runs, user="you")
    programs.queue(squeue_line("17_0", "RUNNING", "None", "harness-abc-0", user="you"))
    assert state(runs, "one") == at("running", "17_0", user="you")
    assert state(runs, "two") == at("gone", "17_1", user="you")
    assert " -u you " in programs.calls_of("squeue")[0]


def test_a_user_of_any_name_has_the_shared_answer(
    runs: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for user in ("me@site", "SITE\\me", "m\u00e9"):
        monkeypatch.setenv("LOGNAME", user)
        write(runs, user=user)
        programs.queue(squeue_line("17_0", "RUNNING", "None", "harness-abc-0", user=user))
        assert state(runs, "one") == at("running", "17_0")


def test_a_refused_submission_keeps_what_slurm_said(runs: Path, programs: Programs) -> None:
    write(runs, state="refused", message="sbatch refused table2: no", job_id=None)
    assert state(runs, "one") == at("refused", "", "sbatch refused table2: no")
    write(runs, token="def-0", runs=("three",), job_id="18", time=OLD + 1)
    programs.queue(squeue_line("18", "RUNNING", "None", "harness-def-0"))
    assert state(runs, "three") == at("running", "18")


def test_of_two_jobs_of_one_run_the_one_that_lives_counts_and_else_the_newer(runs: Path, programs: Programs) -> None:
    """A job that could not be queued again goes on as another one, with the same script and index."""
    ended = squeue_line("17_0", "COMPLETED", "None", "harness-abc-0")
    lives = squeue_line("18_0", "RUNNING", "None", "harness-abc-0")
    for lines in ((ended, lives), (lives, ended)):
        programs.queue(*lines)
        assert state(runs, "one") == at("running", "18_0")
    programs.queue(squeue_line("18_0", "CANCELLED", "None", "harness-abc-0"), ended)
    assert state(runs, "one") == at("gone", "18_0", "CANCELLED", cause="cancelled")


def test_the_accounts_are_asked_for_the_job_that_went_on(runs: Path, programs: Programs) -> None:
    """The first one ended well when it had submitted the other."""
    programs.queue(squeue_line("18_0", "CANCELLED", "None", "harness-abc-0"), *LINES[1:])
    programs.accounts("17_0|COMPLETED|0:0", "18_0|CANCELLED by 1000|0:15")
    assert state(runs, "one") == at("gone", "18_0", "CANCELLED by 1000", cause="cancelled", exit_code=128 + 15)


def test_without_submissions_slurm_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert not has_submissions(tmp_path)
    assert isinstance(look_at_queue(tmp_path), NoScheduler)
    assert cancel_queued(tmp_path, {"one": "first"}, lambda _: None) == (set(), set())


def test_ended_submissions_are_not_asked_for(runs: Path, programs: Programs) -> None:
    write(runs, state="ended")
    assert known(runs, "one").phase == "gone"
    assert programs.calls_of("squeue") == []


def test_outputs_are_those_of_the_runs_own_element(runs: Path) -> None:
    folder = transport_folder(runs, "abc-0")
    folder.mkdir(parents=True)
    for name in ("17_0_0_log.out", "17_1_0_log.out", "17_1_1_log.out", "18_1_0_log.out", "task-1.json", "task-1.ends"):
        (folder / name).touch()
    assert [path.name for path in sorted(submitted_outputs(RunDir(runs / "two")))] == [
        *("17_1_0_log.out", "17_1_1_log.out", "18_1_0_log.out"),
    ]
    assert submitted_outputs(RunDir(runs / "three")) == []


def test_cancel_names_the_elements_of_the_runs_and_no_others(runs: Path, programs: Programs) -> None:
    said: list[str] = []
    assert cancel_queued(runs, {"two": "the second", "three": "the third"}, said.append) == ({"two"}, set())
    assert programs.calls_of("scancel") == ["17_[1]"]
    assert said == ["the second: cancelled job 17_1"]
    assert cancel_queued(runs, {"one": "the first"}, said.append) == ({"one"}, set())
    assert said[-1] == "the first: cancelled job 17_0, which saves and ends"
    assert cancel_queued(runs, {"three": "the third"}, said.append) == (set(), set())
    programs.fail("scancel", "no")
    with pytest.raises(SchedulerError, match="scancel failed: no"):
        cancel_queued(runs, {"two": "the second"}, said.append)


def test_cancel_is_one_call_with_whole_arrays_and_ranges(runs: Path, programs: Programs) -> None:
    many = tuple(f"r{index}" for index in range(6))
    write(runs, token="def-0", runs=many, job_id="18")
    write(runs, token="ghi-0", runs=("alone",), job_id="19")
    elements = [squeue_line(f"18_{index}", "PENDING", "Priority", "harness-def-0") for index in range(6)]
    programs.queue(
        *LINES,
        squeue_line("17_2", "PENDING", "Priority", "harness-abc-0"),
        *elements,
        squeue_line("19", "RUNNING", "None", "harness-ghi-0"),
    )
    names = {name: name for name in ("one", "two", "three", "r0", "r1", "r2", "r4", "alone")}
    assert cancel_queued(runs, names, lambda _: None) == (set(names), set())
    assert programs.calls_of("scancel") == ["17 18_[0-2,4] 19"]


def test_cancel_of_a_thousand_runs_is_three_calls_of_slurm(runs: Path, programs: Programs) -> None:
    many = tuple(f"r{index}" for index in range(1000))
    write(runs, state="ended")
    write(runs, token="def-0", runs=many, job_id="18")
    programs.queue(*(squeue_line(f"18_{index}", "PENDING", "Priority", "harness-def-0") for index in range(1000)))
    assert len(cancel_queued(runs, {name: name for name in many}, lambda _: None)[0]) == 1000
    assert [call.split()[0] for call in programs.calls] == ["scontrol", "squeue", "scancel"]
    assert programs.calls_of("scancel") == ["18"]


def test_cancel_asks_the_queue_now_and_not_by_an_earlier_answer(
    runs: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_QUEUE_SECONDS", "1000")
    assert known(runs, "three").phase == "gone"
    programs.queue(squeue_line("17_2", "RUNNING", "None", "harness-abc-0"))
    assert known(runs, "three").phase == "gone"
    assert cancel_queued(runs, {"three": "the third"}, lambda _: None) == ({"three"}, set())
    assert programs.calls_of("scancel") == ["17_[2]"]


def test_cancel_says_what_it_cannot_cancel_and_ends_nothing_of_another_slurm(runs: Path, programs: Programs) -> None:
    write(runs, token="def-0", runs=("four",), job_id="17", slurm="there")
    write(runs, token="ghi-0", runs=("five",), state="submitting", job_id=None, time=time.time())
    said: list[str] = []
    assert cancel_queued(runs, {"four": "the fourth", "five": "the fifth"}, said.append) == (set(), {"four", "five"})
    assert said == [
        "the fifth: is being submitted at this moment; try again in a minute.",
        "the fourth: not cancelled, since its state is not known. "
        "It is a job of the cluster there; this machine reaches here.",
    ]
    assert programs.calls_of("scancel") == []


def test_a_cancel_that_hangs_is_one_clear_error(
    runs: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs.put("scancel", "exec sleep 60")
    monkeypatch.setattr("harness.slurm.backend.programs.SECONDS", 1.0)
    with pytest.raises(SchedulerError, match="scancel did not answer within 1 s"):
        cancel_queued(runs, {"two": "the second"}, lambda _: None)


def test_cancel_stops_what_runs_here_beside_what_is_queued(
    runs: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One row's seeds: the first in the queue, the second a process of this machine."""
    jobs = [micro_job(write_experiments(tmp_path / "experiments"), seed=0)]
    jobs.append(replace(jobs[0], train=replace(jobs[0].train, seed=1)))
    for job in jobs:
        write_json(RunDir(runs / job.train.id).job, job.train)
    programs.queue(squeue_line("21", "RUNNING", "None", "harness-def-0"))
    write(runs, token="def-0", runs=(jobs[0].train.id,), job_id="21")
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(tmp_path / "experiments"))
    monkeypatch.setenv("HARNESS_RUNS", str(runs))
    monkeypatch.setenv("HARNESS_RESULTS", str(tmp_path / "results"))
    asked: list[str] = []
    monkeypatch.setattr(
        "harness.launch.cancel.stop_runs", lambda names, _: asked.extend(root.name for root in names) or True
    )
    invoke("cancel", "table2/L6", "--profile", "tiny")
    assert programs.calls_of("scancel") == ["21"]
    assert asked == [jobs[1].train.id]
