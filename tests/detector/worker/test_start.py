"""What a start finds in its run's folder of starts that were killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.storage.staging import staging_name
from detector.worker import worker
from support.micro import micro_assignment


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
    monkeypatch.setattr(worker, "log_to", lambda path: None)  # it would take the test's own log
    worker._begin(run, micro_assignment(job, run.root, tmp_path))
    assert not any(path.exists() for path in half)
    assert kept.read_bytes() == b"half"
    assert run.job.exists()
