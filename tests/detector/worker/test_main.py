"""A run's process as Slurm starts it, by the name of a file."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from detector.runs.job import EvalJob
from detector.worker.__main__ import main
from detector.worker.missing_loss import decode, encode
from support.micro import micro_assignment

COMMAND = [sys.executable, "-m", "detector.worker"]


def test_an_assignment_comes_back_as_it_was_written(job: EvalJob, tmp_path: Path) -> None:
    assignment = micro_assignment(job, tmp_path / "run", tmp_path, code_diff="+ä\n", notes=("one",), max_requeues=7)
    assert decode(encode(assignment)) == assignment


@pytest.fixture
def unblocked() -> object:
    """The process's signals as they were, afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield None
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.usefixtures("unblocked")
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: No such file"),
        (b"", "is not the task of a run: "),
        (b"{}", "is not the task of a run: Object missing required field `train`"),
        (b'{"train": 3}', "is not the task of a run: "),
        (b"\x80\xff", "is not the task of a run: "),
    ],
)
def test_a_file_that_is_no_task_is_one_message(
    content: bytes | None, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "task-0.json"
    if content is not None:
        file.write_bytes(content)
    assert main([str(file)]) == 1
    said = capsys.readouterr().err
    assert says in said
    assert str(file) in said
    assert len(said.splitlines()) == 1


@pytest.mark.usefixtures("unblocked")
def test_one_file_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 1
    assert (
        capsys.readouterr().err == "TrainingError: python -m detector.worker takes one file, a task; it was given 0.\n"
    )


def test_the_command_without_a_task_exits_with_1(tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, str(tmp_path / "none")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("RecordError: ")
