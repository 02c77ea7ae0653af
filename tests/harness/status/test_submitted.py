"""Runs that were submitted and not begun: found by each of their names, with the options of their submission."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace as replace_answer
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from detector.errors import UsageError
from detector.runs.folder import RunDir
from detector.runs.job import AnnotatedFolder, EvalJob
from detector.runs.status import Status
from detector.storage.files import write_json
from harness.cli.runs import status as cli_status
from harness.cli.runs import watch as cli_watch
from harness.planning.selection import Selection
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve
from harness.slurm import cancel as slurm_cancel
from harness.slurm import queue as slurm_queue
from harness.slurm.states import SchedulerState
from harness.slurm.submissions import Member, Options, Submission, transport_folder, write_submission
from harness.status.observe import failed_ids
from harness.store.cancelled import note_cancelled_run
from support.micro import micro_job, write_experiments
from support.records import record_of
from tests.command import error, invoke

HELD = SchedulerState("held", "JobHeldUser", job="17_0", cluster="mine")


class Answers:
    """Slurm's queue as a test writes it. Without an answer for a run it was never submitted."""

    of: Mapping[str, SchedulerState] = {}
    down = ""
    asked = 0

    def __init__(self, runs: Path, *, damaged: object) -> None:
        Answers.asked += 1

    def states(self, run: RunDir) -> SchedulerState | None:
        answer = Answers.of.get(run.root.name)
        if answer is None or not Answers.down:
            return answer
        seen = f"Last seen: {answer.phase} ({answer.reason})."
        return replace_answer(answer, phase="unknown", reason=f"{Answers.down} {seen}", seen=time.time() - 720)


@pytest.fixture
def experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_folders: None) -> Path:
    folder = write_experiments(tmp_path / "experiments")
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(folder))
    monkeypatch.setattr(slurm_queue, "SlurmQueue", Answers)
    monkeypatch.setattr(Answers, "of", {})
    monkeypatch.setattr(Answers, "down", "")
    monkeypatch.setattr(Answers, "asked", 0)
    return folder


def submit(
    runs: Path, *jobs: EvalJob, refs: str = "table2/L6", job_id: str | None = "17", age: float = 100.0, **values: Any
) -> Submission:
    """A submission as the launcher writes it before sbatch. values: of Options, or state and message."""
    own = {name: values.pop(name) for name in ("state", "message", "slurm") if name in values}
    entry = Submission(
        **{"state": "submitted", **own},
        token=f"abc{len(list((runs / 'submissions').glob('*.json')))}-0",
        cluster="mine",
        runs=tuple(job.train.id for job in jobs),
        time=time.time() - age,
        code="c",
        job_id=job_id,
        members=tuple(Member(train=job.train, refs=(refs,), evals=(job.id,)) for job in jobs),
        options=Options(**{"profile": "tiny", "cluster": "mine", **values}),
    )
    write_submission(runs, entry)
    return entry


def listed(*arguments: str, profile: str = "tiny") -> dict[str, dict[str, Any]]:
    """By training, what --json says of each run."""
    found = json.loads(invoke("status", *arguments, "--profile", profile, "--json").stdout)["runs"]
    return {run["training"]: run for run in found}


def test_a_held_run_of_any_seed_is_found_without_a_folder(experiments: Path, tmp_path: Path) -> None:
    jobs = [micro_job(experiments, seed=seed) for seed in (0, 27)]
    submit(tmp_path / "runs", *jobs)
    Answers.of = {job.train.id: HELD for job in jobs}
    for target in ((), ("table2",), ("table2/L6",)):
        found = listed(*target)
        assert [found[job.train.id]["state"] for job in jobs] == ["held", "held"]
        assert [found[job.train.id]["seed"] for job in jobs] == [0, 27]
    assert not any((tmp_path / "runs" / job.train.id).exists() for job in jobs)
    text = invoke("status", "-p", "tiny").stdout
    assert "held (JobHeldUser: held by its user; scontrol release 17_0)" in text
    assert "2 runs: 2 held" in text


def test_a_held_run_with_set_is_found_with_it_and_listed_without_a_target(experiments: Path, tmp_path: Path) -> None:
    job = micro_job(experiments, seed=11)
    other = replace(job, train=replace(job.train, optimizer=replace(job.train.optimizer, lr=0.5)))
    submit(tmp_path / "runs", other, overrides=("optimizer.lr=0.5",))
    (tmp_path / "runs" / other.train.id).mkdir()
    (tmp_path / "runs" / other.train.id / "claim.json").write_text("{}")
    Answers.of = {other.train.id: HELD}
    assert list(listed("table2/L6", "--set", "optimizer.lr=0.5")) == [micro_id(other, 0), other.train.id]
    assert other.train.id not in listed("table2/L6")
    found = listed()[other.train.id]
    assert (found["state"], found["rows"], found["seed"]) == ("held", ["table2/L6"], 11)
    assert "--set" in found["options"]
    text = invoke("status", "-p", "tiny").stdout
    assert text.startswith("table2/L6 --set optimizer.lr=0.5  seed 11  ")
    assert "Other run folders" not in text
    # Once it has begun, and once it is done, it is the same run.
    run = RunDir(tmp_path / "runs" / other.train.id)
    write_json(run.job, other.train)
    assert listed()[other.train.id]["state"] == "held"
    write_json(run.record(other.id), record_of(other))
    assert listed()[other.train.id]["state"] == "done"


def micro_id(job: EvalJob, seed: int) -> str:
    return replace(job.train, seed=seed).id


def test_a_held_run_of_a_data_folder_is_found_with_and_without_naming_it(experiments: Path, tmp_path: Path) -> None:
    registry = Registry(experiments)
    job = eval_job(resolve(registry, "table2/L6", registry.profile("smoke")), 12)
    assert isinstance(job.train.data, AnnotatedFolder)
    data = replace(job.train.data, train_sha256="a" * 64, test_sha256="b" * 64)
    named = replace(job, train=replace(job.train, data=data))
    submit(tmp_path / "runs", named, profile="smoke", data="/some/coco")
    Answers.of = {named.train.id: SchedulerState("gone", "CANCELLED by 7", cause="cancelled", job="17")}
    assert listed("table2/L6", profile="smoke")[named.train.id]["state"] == "cancelled"
    text = invoke("status", "-p", "smoke").stdout
    assert "next: harness run table2/L6 --profile smoke --seeds 13 --data /some/coco --cluster mine" in text


def test_of_another_profile_nothing_is_listed(experiments: Path, tmp_path: Path) -> None:
    job = micro_job(experiments)
    other = replace(job, train=replace(job.train, optimizer=replace(job.train.optimizer, lr=0.5)))
    submit(tmp_path / "runs", other, overrides=("optimizer.lr=0.5",), profile="smoke")
    Answers.of = {other.train.id: HELD}
    assert listed() == {}


def test_next_commands_repeat_the_options_of_the_submission(experiments: Path, tmp_path: Path) -> None:
    job = micro_job(experiments, seed=2)
    submit(tmp_path / "runs", job, data="/my data", weights="/w.pkl", cluster="/c/mine.yaml")
    run = RunDir(tmp_path / "runs" / job.train.id)
    write_json(run.job, job.train)
    Answers.of = {job.train.id: SchedulerState("gone", "OUT_OF_MEMORY", cause="memory", exit_code=253, job="17")}
    text = invoke("status", "table2/L6", "-p", "tiny").stdout
    command = "table2/L6 --profile tiny --seeds 3 --data '/my data' --weights /w.pkl --cluster /c/mine.yaml"
    assert f"next: harness run {command} --retry-failed" in text
    assert "raise memory_gb_per_gpu in the cluster file" in text
    # A person has started it here since: then the machine's options are those of the command line.
    write_json(run.status, Status(phase="failed", time=time.time(), pid=1, message="MemoryError"))
    text = invoke("status", "table2/L6", "-p", "tiny").stdout
    assert "next: free -g; harness run table2/L6 --profile tiny --seeds 3 --retry-failed" in text
    assert "execution.memory_gb)" in text


def test_a_lost_run_is_resumed_where_it_was_submitted(experiments: Path, tmp_path: Path) -> None:
    jobs = [micro_job(experiments, seed=seed) for seed in range(3)]
    submit(tmp_path / "runs", *jobs)
    for job in jobs:
        run = RunDir(tmp_path / "runs" / job.train.id)
        write_json(run.job, job.train)
        write_json(run.status, Status(phase="training", time=time.time(), pid=1, job="17"))
    Answers.of = {job.train.id: SchedulerState("gone", job="17") for job in jobs}
    text = invoke("status", "-p", "tiny").stdout
    assert text.count("lost: gone from the queue; resumes with the same command") == 3
    assert "lost: 3 runs\n  next: harness run table2/L6 --profile tiny --seeds 3 --cluster mine\n" in text


def test_a_run_that_died_before_start_shows_its_last_line(experiments: Path, tmp_path: Path) -> None:
    job = micro_job(experiments)
    folder = transport_folder(tmp_path / "runs", submit(tmp_path / "runs", job).token)
    folder.mkdir()
    (folder / "17_0_log.out").write_text(
        "harness: start 0\nbash: line 9: apptainer: command not found\n"
        "srun: error: n1: task 0: Exited with exit code 127\n"
    )
    Answers.of = {job.train.id: SchedulerState("gone", "FAILED", cause="failed", exit_code=127, job="17")}
    text = invoke("status", "table2/L6", "-p", "tiny").stdout
    assert "died before start: bash: line 9: apptainer: command not found\n" in text
    assert "next: harness doctor --cluster mine\n" in text
    assert "apptainer: command not found" in invoke("logs", "17").stdout


def test_a_refused_run_says_what_slurm_said_and_is_retried(experiments: Path, tmp_path: Path) -> None:
    job = micro_job(experiments)
    submit(tmp_path / "runs", job, job_id=None, state="refused", message="Invalid qos specification")
    Answers.of = {job.train.id: SchedulerState("refused", "Invalid qos specification", cluster="mine")}
    text = invoke("status", "table2/L6", "-p", "tiny").stdout
    assert "refused: Invalid qos specification" in text
    assert "next: harness run table2/L6 --profile tiny --cluster mine" in text


@pytest.mark.parametrize(
    ("state", "retried"),
    [
        (SchedulerState("gone", "FAILED", cause="failed", exit_code=1), True),
        (SchedulerState("gone"), True),
        (SchedulerState("refused", "Invalid qos"), True),
        (SchedulerState("gone", "PREEMPTED", cause="preempted"), True),
        (SchedulerState("gone", "CANCELLED by 7", cause="cancelled"), False),
        (SchedulerState("unknown", "squeue does not answer"), False),
        (HELD, False),
    ],
)
def test_retry_failed_leaves_alone_what_was_cancelled_or_is_not_known(
    experiments: Path, tmp_path: Path, state: SchedulerState, retried: bool
) -> None:
    job = micro_job(experiments)
    submit(tmp_path / "runs", job)
    Answers.of = {job.train.id: state}
    selection = Selection("table2/L6", "tiny", [], None)
    assert failed_ids(selection.plan(1), selection.store) == ({job.train.id} if retried else set())


def test_a_cancelled_run_is_not_lost_where_slurm_keeps_no_accounts(experiments: Path, tmp_path: Path) -> None:
    job = micro_job(experiments)
    submit(tmp_path / "runs", job)
    run = RunDir(tmp_path / "runs" / job.train.id)
    Answers.of = {job.train.id: SchedulerState("gone", job="17")}
    assert listed("table2/L6")[job.train.id]["state"] == "lost"
    note_cancelled_run(run)
    assert listed("table2/L6")[job.train.id]["state"] == "cancelled"
    submit(tmp_path / "runs", job, job_id="18", age=-1.0)  # submitted again since
    assert listed("table2/L6")[job.train.id]["state"] == "lost"


def test_a_queue_that_does_not_answer_leaves_the_last_known_state(
    experiments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    jobs = [micro_job(experiments, seed=seed) for seed in range(2)]
    submit(tmp_path / "runs", *jobs)
    run = RunDir(tmp_path / "runs" / jobs[0].train.id)
    write_json(run.job, jobs[0].train)
    values = {"iteration": 50, "iterations": 100, "job": "17_0"}
    write_json(run.status, Status(phase="training", time=time.time() - 3600, pid=1, **values))
    Answers.of = {
        jobs[0].train.id: SchedulerState("running", "R", job="17_0", cluster="mine"),
        jobs[1].train.id: SchedulerState("pending", "Priority", job="17_1", cluster="mine"),
    }
    Answers.down = "squeue failed: no answer."
    found = listed("table2/L6", "-n", "2")
    assert found[jobs[0].train.id]["text"] == (
        "unknown (last: running 50%, 1:00:00 ago; in the queue: running (R); squeue failed: no answer), as of 12:00 ago"
    )
    assert found[jobs[1].train.id]["state"] == "unknown"
    assert found[jobs[1].train.id]["text"] == (
        "unknown (in the queue: pending (Priority); squeue failed: no answer), as of 12:00 ago"
    )
    assert (found[jobs[0].train.id]["cluster"], found[jobs[0].train.id]["job"]) == ("mine", "17_0")


def test_watch_goes_on_while_the_queue_does_not_answer(
    experiments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = micro_job(experiments)
    submit(tmp_path / "runs", job)
    run = RunDir(tmp_path / "runs" / job.train.id)
    Answers.of = {job.train.id: SchedulerState("pending", "Priority", job="17")}

    def down() -> None:
        Answers.down = "squeue failed: down."

    def up() -> None:
        Answers.down = ""
        write_json(run.job, job.train)
        write_json(run.record(job.id), record_of(job))

    between = iter([down, down, down, up])
    monkeypatch.setattr(cli_watch.time, "sleep", lambda seconds: next(between, lambda: None)())
    shown = invoke("status", "table2/L6", "-p", "tiny", "--watch")
    lines = [line for line in shown.stdout.splitlines() if job.train.id in line]
    assert "pending (Priority: other jobs come first)" in lines[0]
    assert "unknown (in the queue: pending (Priority); squeue failed: down), as of 12:00 ago" in lines[1]
    assert ["done (AP" in line for line in lines[2:]] == [True, True]  # as a change, and at the end
    assert Answers.asked == 6


def test_a_run_is_named_by_its_id_and_by_its_job(experiments: Path, tmp_path: Path) -> None:
    jobs = [micro_job(experiments, seed=seed) for seed in range(2)]
    runs = tmp_path / "runs"
    folder = transport_folder(runs, submit(runs, *jobs).token)
    folder.mkdir()
    for index in range(2):
        (folder / f"17_{index}_0_log.out").write_text(f"words of {index}\n")
    Answers.of = {job.train.id: SchedulerState("gone", job=f"17_{i}") for i, job in enumerate(jobs)}
    assert invoke("logs", "17_1").stdout == "words of 1\n"
    assert invoke("logs", jobs[1].train.id[:8]).stdout == "words of 1\n"
    message = error("logs", "17")
    assert "Job 17 has 2 runs: 17_0 (table2/L6, seed 0), 17_1 (table2/L6, seed 1). Give one of them." in message
    assert "no id begins with it, and it is no job" in error("logs", "18")
    Answers.of = {job.train.id: HELD for job in jobs}
    assert "has no log yet: held (JobHeldUser" in error("logs", "table2/L6", "-p", "tiny", "--seed", "1")


def test_a_job_of_two_clusters_and_an_id_like_a_job_are_named(experiments: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    submit(runs, micro_job(experiments, seed=0), job_id="123", slurm="one")
    submit(runs, micro_job(experiments, seed=1), job_id="123", slurm="two")
    message = error("logs", "123")
    assert "it is Slurm's job of: 123 on mine (" in message
    (runs / "1234567890abcdef").mkdir()
    submit(runs, micro_job(experiments, seed=2), job_id="1234")
    assert "1 id begins with it: 1234567890abcdef; it is Slurm's job of: 1234" in error("logs", "1234")


def test_cancel_takes_held_runs_by_any_name(experiments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [micro_job(experiments, seed=seed) for seed in (0, 27)]
    other = replace(jobs[0], train=replace(jobs[0].train, optimizer=replace(jobs[0].train.optimizer, lr=0.5)))
    submit(tmp_path / "runs", *jobs)
    submit(tmp_path / "runs", other, job_id="19", overrides=("optimizer.lr=0.5",))
    asked: list[dict[str, str]] = []

    def cancel_queued(runs: Path, names: Mapping[str, str], say: Any) -> tuple[set[str], set[str]]:
        asked.append(dict(names))
        return set(names), set()

    monkeypatch.setattr(slurm_cancel, "cancel_queued", cancel_queued)
    both = {job.train.id: f"table2/L6, seed {job.train.seed}" for job in jobs}
    for name in (("table2/L6", "-p", "tiny"), ("17",)):
        invoke("cancel", *name)
    invoke("cancel", "17_1", jobs[0].train.id)
    assert asked == [both] * 3
    asked.clear()
    invoke("cancel", "table2/L6", "-p", "tiny", "--set", "optimizer.lr=0.5")
    invoke("cancel", "19")
    assert asked[0][other.train.id] == "table2/L6, seed 0"
    assert asked[1] == {other.train.id: "table2/L6 --set optimizer.lr=0.5, seed 0"}
    with pytest.raises(UsageError, match="it is no job"):
        cli_status.cancel(["20"])
