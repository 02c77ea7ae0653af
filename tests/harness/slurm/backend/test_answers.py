"""The queue's last answer, which all commands share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from detector.errors import SchedulerError, UsageError
from detector.storage.locks import held
from harness.slurm.backend import answers as module
from harness.slurm.backend.answers import VARIABLE, AnswerFile, Ended, QueuedJob, seconds_between

PROJECT = Path(__file__).resolve().parents[4]


@dataclass
class Queue:
    """Stands in for squeue and sacct, and for the clock."""

    time: float = 1_000_000.0
    jobs: list[QueuedJob] = field(default_factory=lambda: [QueuedJob("17", "RUNNING")])
    ended: dict[str, Ended] = field(default_factory=dict)
    problem: str = ""
    asked: list[list[str]] = field(default_factory=list)

    def ask(self, about: Sequence[str]) -> list[QueuedJob]:
        self.asked.append(list(about))
        if self.problem:
            raise SchedulerError(self.problem)
        return self.jobs

    def ask_accounts(self, about: Sequence[str]) -> dict[str, Ended]:
        self.asked.append(list(about))
        return {job: self.ended[job] for job in about if job in self.ended}

    def file(self, path: Path) -> AnswerFile:
        return AnswerFile(path, now=lambda: self.time)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    monkeypatch.delenv(VARIABLE, raising=False)
    return Queue()


def test_one_question_in_some_seconds_is_for_all(queue: Queue, tmp_path: Path) -> None:
    mine, yours = (queue.file(tmp_path / "a.json") for _ in range(2))  # of two commands
    for file in (mine, yours, mine):
        found = file.jobs(["me"], queue.ask)
        assert (found.jobs, found.failed, found.queue_time) == (tuple(queue.jobs), "", 1_000_000.0)
    assert queue.asked == [["me"]]
    queue.time += 29.9
    yours.jobs(["me"], queue.ask)
    assert queue.asked == [["me"]]
    queue.time += 0.1
    yours.jobs(["me"], queue.ask)
    mine.jobs(["me"], queue.ask)
    assert len(queue.asked) == 2


def test_a_fresh_answer_is_asked_for_in_any_case_and_kept_for_the_others(queue: Queue, tmp_path: Path) -> None:
    file = queue.file(tmp_path / "a.json")
    file.jobs(["me"], queue.ask)
    queue.jobs = []
    assert file.jobs(["me"], queue.ask, fresh=True).jobs == ()
    assert file.jobs(["me"], queue.ask).jobs == ()
    assert len(queue.asked) == 2


def test_after_a_change_of_the_queue_the_next_look_asks(queue: Queue, tmp_path: Path) -> None:
    mine, yours = (queue.file(tmp_path / "a.json") for _ in range(2))
    mine.jobs(["me"], queue.ask)
    mine.forget()
    for file in (yours, mine):
        file.jobs(["me"], queue.ask)
    assert len(queue.asked) == 2


def test_an_answer_from_before_a_submission_says_nothing_of_it(queue: Queue, tmp_path: Path) -> None:
    file = queue.file(tmp_path / "a.json")
    file.jobs(["me"], queue.ask)
    queue.time += 5
    file.jobs(["me"], queue.ask, since=queue.time - 10)
    assert len(queue.asked) == 1
    file.jobs(["me"], queue.ask, since=queue.time - 1)
    assert len(queue.asked) == 2
    file.jobs(["me"], queue.ask, since=queue.time + 60)  # by a clock that goes before this machine's
    file.jobs(["me"], queue.ask, since=queue.time + 60)
    assert len(queue.asked) == 4


def test_a_question_about_more_users_is_asked_for_all_of_them(queue: Queue, tmp_path: Path) -> None:
    file = queue.file(tmp_path / "a.json")
    file.jobs(["me"], queue.ask)
    file.jobs(["you"], queue.ask)
    file.jobs(["me"], queue.ask)
    file.jobs(["me", "you"], queue.ask)
    assert queue.asked == [["me"], ["me", "you"]]
    queue.time += 100
    file.jobs(["me"], queue.ask)
    assert queue.asked[2:] == [["me"]]  # the others are looked at no more


def test_a_failure_is_kept_too_and_the_answer_before_stays_with_its_time(queue: Queue, tmp_path: Path) -> None:
    file = queue.file(tmp_path / "a.json")
    file.jobs(["me"], queue.ask)
    queue.time, queue.problem = queue.time + 60, "squeue failed: down."
    for _ in range(3):
        found = file.jobs(["me"], queue.ask)
        assert (found.failed, found.jobs, found.queue_time) == ("squeue failed: down.", tuple(queue.jobs), 1_000_000.0)
    assert len(queue.asked) == 2
    queue.time, queue.problem = queue.time + 60, ""
    assert file.jobs(["me"], queue.ask).failed == ""
    assert file.read().failed_time == 0.0


def test_a_clock_that_went_back_makes_no_answer_new_for_ever(queue: Queue, tmp_path: Path) -> None:
    file = queue.file(tmp_path / "a.json")
    file.jobs(["me"], queue.ask)
    queue.time -= 10_000
    file.jobs(["me"], queue.ask)
    assert len(queue.asked) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"jobs": 3}', '{"jobs": [{"id": 17}]}', "\0" * 100])
def test_a_broken_file_is_written_anew(queue: Queue, tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    assert queue.file(path).jobs(["me"], queue.ask).jobs == tuple(queue.jobs)
    assert queue.file(path).jobs(["me"], queue.ask).jobs == tuple(queue.jobs)
    assert queue.asked == [["me"]]


def test_where_nothing_may_be_written_each_command_asks_once_for_itself(queue: Queue, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for _ in range(2):
        found = queue.file(tmp_path / "file" / "a.json").jobs(["me"], queue.ask)
        assert (found.jobs, found.failed) == (tuple(queue.jobs), "")
    assert queue.asked == [["me"], ["me"]]


def test_where_nothing_was_submitted_nothing_is_left(queue: Queue, tmp_path: Path) -> None:
    found = queue.file(tmp_path / "submissions" / "answers" / "a.json").jobs(["me"], queue.ask)
    assert found.jobs == tuple(queue.jobs)
    assert list(tmp_path.iterdir()) == []


def test_on_a_full_disk_a_command_asks_once(queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_json", full)
    assert queue.file(tmp_path / "a.json").jobs(["me"], queue.ask).jobs == tuple(queue.jobs)
    assert queue.asked == [["me"]]


def test_a_command_that_waits_for_anothers_question_in_vain_knows_nothing_new(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has is not what the queue says now: taken for that, runs would be submitted twice."""
    monkeypatch.setattr(module, "LONGEST_WAIT", 0.0)
    file = queue.file(tmp_path / "a.json")
    with held(tmp_path / "a.lock"):
        found = file.jobs(["me"], queue.ask, fresh=True)
    assert found.failed == "Another command has asked the queue for 0 s and has no answer yet."
    assert queue.asked == []
    assert file.jobs(["me"], queue.ask).failed == ""


def test_the_answer_of_another_process_is_used(queue: Queue, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom harness.slurm.backend.answers import AnswerFile, QueuedJob\n"
        "file = AnswerFile(Path(sys.argv[1]), now=lambda: 1_000_000.0)\n"
        "file.jobs(['me'], lambda users: [QueuedJob('21', 'PENDING', 'Priority')])\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.json")], cwd=PROJECT, check=True)
    assert queue.file(tmp_path / "a.json").jobs(["me"], queue.ask).jobs == (QueuedJob("21", "PENDING", "Priority"),)
    assert queue.asked == []


def test_the_accounts_are_asked_once_in_some_seconds_for_the_same_jobs(queue: Queue, tmp_path: Path) -> None:
    file, other = queue.file(tmp_path / "a.json"), queue.file(tmp_path / "a.json")
    queue.ended = {"17": Ended("COMPLETED", 0)}
    assert file.accounts(["17", "18"], queue.ask_accounts) == {"17": Ended("COMPLETED", 0)}
    assert other.accounts(["17"], queue.ask_accounts) == {"17": Ended("COMPLETED", 0)}
    assert other.accounts(["18"], queue.ask_accounts) == {}
    assert queue.asked == [["17", "18"]]
    queue.time += 31
    queue.ended["18"] = Ended("FAILED", 1)
    assert other.accounts(["18"], queue.ask_accounts) == {"18": Ended("FAILED", 1)}


def test_a_job_that_ended_since_is_asked_for_at_once(queue: Queue, tmp_path: Path) -> None:
    """Else one that the accounts have as running would be taken for gone."""
    file = queue.file(tmp_path / "a.json")
    file.accounts(["17"], queue.ask_accounts)
    queue.ended = {"18": Ended("RUNNING", 0)}
    assert file.accounts(["17", "18"], queue.ask_accounts) == {"18": Ended("RUNNING", 0)}


def test_accounts_that_do_not_answer_take_back_nothing(queue: Queue, tmp_path: Path) -> None:
    file = queue.file(tmp_path / "a.json")
    queue.ended = {"17": Ended("CANCELLED by 1000", 0)}
    file.accounts(["17"], queue.ask_accounts)
    queue.time, queue.ended = queue.time + 60, {}
    assert file.accounts(["17"], queue.ask_accounts) == {"17": Ended("CANCELLED by 1000", 0)}
    assert len(queue.asked) == 2


def test_nobody_is_asked_about_no_jobs(queue: Queue, tmp_path: Path) -> None:
    assert queue.file(tmp_path / "a.json").accounts([], queue.ask_accounts) == {}
    assert queue.asked == []


@pytest.mark.parametrize(("text", "expected"), [("", 30.0), ("0", 0.0), ("5", 5.0), ("2.5", 2.5)])
def test_the_seconds_between_two_questions_can_be_set(
    monkeypatch: pytest.MonkeyPatch, text: str, expected: float
) -> None:
    monkeypatch.setenv(VARIABLE, text)
    assert seconds_between() == expected


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "1e9", "a minute", "1,5", " "])
def test_seconds_that_are_none_are_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(UsageError, match=f"{VARIABLE} is .*; it must be a number of seconds from 0 on"):
        seconds_between()


def test_with_no_seconds_each_command_asks(queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    for _ in range(3):
        queue.file(tmp_path / "a.json").jobs(["me"], queue.ask)
    assert len(queue.asked) == 3
