"""What a start finds in its run's folder of starts that were killed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.storage.retry import Waiting
from detector.storage.staging import staging_name
from detector.training.stop import StopRequested
from detector.worker import worker
from support.micro import ALONE, micro_assignment


def test_files_that_killed_starts_left_half_written_are_removed(
    job: EvalJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(tmp_path / "run")
    kept = run.checkpoints / "0000004.pt"
    half = [
        staging_name(path)
        for path in (run.status, run.checkpoints / "0000006.pt", run.final, run.record(job.id), run.detections(job.id))
    ]
    for path in (kept, *half):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
        os.utime(path, (0, 0))
    monkeypatch.setattr(worker, "log_to", lambda path: None)  # it would take the test's own log
    worker._begin(run, micro_assignment(job, run.root, tmp_path))
    assert not any(path.exists() for path in half)
    assert kept.read_bytes() == b"half"
    assert run.job.exists()


def test_the_changes_of_an_earlier_starts_code_are_kept_beside_the_newest(job: EvalJob, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    for text in ("+first\n", "+first\n", "+second\n", ""):
        worker._describe_start(run, ALONE, micro_assignment(job, run.root, tmp_path, code_diff=text))
    kept = {hashlib.sha256(text.encode()).hexdigest(): text for text in ("+first\n", "+second\n")}
    assert not run.code_diff.exists()
    assert {sha256: run.earlier_code_diff(sha256).read_text() for sha256 in kept} == kept
    assert sorted(path.name for path in run.root.glob("code*.diff")) == sorted(f"code-{key[:8]}.diff" for key in kept)


def test_a_stop_ends_a_wait_for_storage_and_nothing_else() -> None:
    waiting = Waiting("writing final.pt", "No space left on device", 4.0)
    worker.end_wait(lambda: False, waiting)
    worker.end_wait(lambda: True, None)
    with pytest.raises(StopRequested, match=r"stopped while it waited for its disk \(writing final\.pt\)"):
        worker.end_wait(lambda: True, waiting)
