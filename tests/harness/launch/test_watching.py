"""The launcher while its runs live: storage that is away, and processes that wait for one that was killed."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from detector.errors import RecordError
from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.storage import retry as retrying
from harness.launch import hangs
from harness.launch import local as launch
from harness.launch.local import Slot, _Active, _end_abandoned, run_local
from support.micro import micro_assignment, micro_job, write_experiments

STARTS_A_CHILD = "import subprocess; print(subprocess.run(['sleep', '60']).returncode)"


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> EvalJob:
    return micro_job(write_experiments(tmp_path_factory.mktemp("registry") / "experiments"))


class View:
    def __init__(self) -> None:
        self.said: list[str] = []

    def update(self, train_id: str, status: object) -> None:
        assert status is None

    def finish(self, train_id: str, text: str) -> None:
        self.said.append(text)


def test_run_local_waits_while_the_runs_folder_is_away(
    monkeypatch: pytest.MonkeyPatch, job: EvalJob, tmp_path: Path
) -> None:
    answers: list[object] = [OSError(errno.EIO, "away"), OSError(errno.EIO, "away"), False, True]

    def done() -> bool:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return bool(answer)

    def unreadable(run: RunDir) -> None:
        raise RecordError("away")

    assignment, view = micro_assignment(job, tmp_path, tmp_path), View()
    fake = SimpleNamespace(done=done, job_id="1")
    monkeypatch.setattr(launch, "_start", lambda item, slot: _Active(item, RunDir(tmp_path), fake, slot, 0.0))
    monkeypatch.setattr(launch, "is_done", lambda item: True)
    monkeypatch.setattr(launch, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(RunDir, "read_status", unreadable)
    monkeypatch.setattr(retrying.time, "sleep", lambda seconds: None)
    assert run_local([assignment], [Slot(())], view) == []
    assert (answers, view.said) == ([], ["done"])


@pytest.fixture
def abandoned(job: EvalJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Active:
    """A run of two processes of which one lives."""
    monkeypatch.setattr(launch, "ABANDONED_SECONDS", 0.0)
    controller = subprocess.Popen([sys.executable, "-c", STARTS_A_CHILD], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not hangs.children(controller.pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    fake = SimpleNamespace(job_id=str(controller.pid), controller=controller)
    return _Active(micro_assignment(job, tmp_path, tmp_path), RunDir(tmp_path), fake, Slot((0, 1)), 0.0, tasks=2)


def test_a_process_that_waits_for_a_killed_one_is_ended(abandoned: _Active) -> None:
    _end_abandoned(abandoned)
    assert abandoned.abandoned is not None  # not at once: those who have met end by themselves, with a reason
    time.sleep(0.01)
    _end_abandoned(abandoned)
    out, _ = abandoned.job.controller.communicate(timeout=60)
    assert out == "-9\n"


def test_a_process_whose_companion_ended_with_words_is_left_alone(abandoned: _Active) -> None:
    abandoned.run.submitit.mkdir()
    (abandoned.run.submitit / f"{abandoned.job.job_id}_1_result.pkl").touch()
    for _ in range(3):
        _end_abandoned(abandoned)
        time.sleep(0.01)
    assert abandoned.abandoned is None
    assert abandoned.job.controller.poll() is None
    (child,) = hangs.children(abandoned.job.controller.pid)
    subprocess.run(["kill", str(child)], check=True)
    abandoned.job.controller.communicate(timeout=60)
