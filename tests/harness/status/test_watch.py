"""Looking again and again: ``status --watch`` beside a local command, ``logs -f`` of a run that waits or hangs."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import typer
from msgspec.structs import replace

from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.runs.status import Status
from detector.storage.files import write_json
from harness.cli.runs import logs as cli_logs
from harness.cli.runs import watch as cli_watch
from harness.launch.lease import leasing
from harness.slurm.states import SchedulerState
from harness.status import logs as status_logs
from harness.status import observe
from support.micro import micro_job, write_experiments
from support.records import record_of
from tests.command import invoke


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_folders: None) -> list[EvalJob]:
    """Two seeds of table2/L6."""
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(write_experiments(tmp_path / "experiments")))
    return [micro_job(tmp_path / "experiments", seed=seed) for seed in range(2)]


def end(runs: Path, job: EvalJob) -> None:
    """As a worker leaves a run that is done."""
    run = RunDir(runs / job.train.id)
    write_json(run.job, job.train)
    write_json(run.record(job.id), record_of(job))


def steps(monkeypatch: pytest.MonkeyPatch, module: Any, *actions: Callable[[], object]) -> list[Callable[[], object]]:
    """What happens in each of its sleeps. Returns those that are left."""
    left = list(actions)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: left.pop(0)() if left else None)
    return left


@pytest.mark.parametrize("target", [["table2/L6", "-n", "2"], []])
def test_watch_lives_as_long_as_the_command_that_it_watches(
    jobs: list[EvalJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: list[str]
) -> None:
    runs, stack = tmp_path / "runs", ExitStack()
    ended = stack.enter_context(leasing(runs, [job.train.id for job in jobs]))

    def end_first() -> None:
        end(runs, jobs[0])
        ended(jobs[0].train.id)

    def end_second() -> None:
        end(runs, jobs[1])
        stack.close()

    wait = lambda: None  # noqa: E731
    left = steps(monkeypatch, cli_watch, end_first, wait, wait, wait, wait, end_second)
    with stack:
        text = invoke("status", *target, "-p", "tiny", "--watch").stdout
    assert left == []
    assert text.count("waiting for its turn") == 2
    assert "2 runs: 2 done" in text


def test_watch_does_not_wait_for_another_commands_runs(
    jobs: list[EvalJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end(tmp_path / "runs", jobs[0])
    left = steps(monkeypatch, cli_watch, lambda: None, lambda: None)
    with leasing(tmp_path / "runs", [jobs[1].train.id]):
        assert "1 run: 1 done" in invoke("status", "table2/L6", "-p", "tiny", "--watch").stdout
    assert len(left) == 1


def test_watch_of_all_lives_with_a_command_whose_next_run_cannot_be_told(
    jobs: list[EvalJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its data folder is not named here, so that the id of a run that has no folder yet is of no known row."""
    end(tmp_path / "runs", jobs[0])
    stack = ExitStack()
    stack.enter_context(leasing(tmp_path / "runs", ["f" * 16]))
    left = steps(monkeypatch, cli_watch, lambda: None, lambda: None, lambda: None, stack.close)
    with stack:
        assert "1 run: 1 done" in invoke("status", "-p", "tiny", "--watch").stdout
    assert left == []


class Answers:
    """A queue whose answer a test changes."""

    def __init__(self, state: SchedulerState | None) -> None:
        self.state = state

    def states(self, run: RunDir) -> SchedulerState | None:
        return self.state


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    found = Answers(None)
    monkeypatch.setattr(observe.Queue, "look", lambda self: found)
    monkeypatch.setattr(cli_logs, "WATCH_SECONDS", 0.0)
    return found


def follow(run: RunDir) -> None:
    context = typer.Context(typer.main.get_command(typer.Typer(callback=lambda: None, invoke_without_command=True)))
    cli_logs.logs(context, run.root.name, follow=True)


def test_logs_follow_waits_for_a_queued_run_with_a_word_and_ends_with_it(
    jobs: list[EvalJob],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answers: Answers,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = RunDir(tmp_path / "runs" / jobs[0].train.id)
    run.root.mkdir(parents=True)
    answers.state = SchedulerState("pending", "Priority", job="17")
    beat = Status(phase="training", time=time.time(), pid=1, job="17", iteration=5, iterations=10)

    def begin() -> None:
        answers.state = SchedulerState("running", job="17")
        write_json(run.status, beat)
        run.log.write_text("iteration 5\n")

    def stop() -> None:
        with run.log.open("a") as file:
            file.write("the last line\n")
        answers.state = SchedulerState("gone", job="17")
        write_json(run.status, replace(beat, phase="stopped"))

    left = steps(monkeypatch, status_logs, lambda: None, begin, lambda: None, stop)
    follow(run)
    assert left == []
    said = capsys.readouterr()
    assert said.out == "iteration 5\nthe last line\n"
    assert said.err == "pending (Priority: other jobs come first)\n"


def test_logs_follow_says_once_that_a_run_gets_no_further(
    jobs: list[EvalJob],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answers: Answers,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = RunDir(tmp_path / "runs" / jobs[0].train.id)
    run.root.mkdir(parents=True)
    run.log.write_text("iteration 5\n")
    answers.state = SchedulerState("running", job="17")
    now = time.time()
    beat = Status(
        phase="training", time=now, pid=1, job="17", iteration=5, iterations=10, progressed=now - 725, silence=600.0
    )
    write_json(run.status, beat)

    def stop() -> None:
        answers.state = SchedulerState("gone", job="17")

    steps(monkeypatch, status_logs, lambda: None, lambda: None, stop)
    follow(run)
    said = capsys.readouterr()
    assert said.out == "iteration 5\n"
    assert said.err == f"no progress for 12 min at 50%; to stop it: harness cancel {run.root.name}\n"
