"""A run's folder as others look at it while the run goes on."""

from __future__ import annotations

import fcntl
from pathlib import Path

from detector.runs.folder import RunDir
from detector.runs.status import Status
from detector.storage.files import write_json


def test_looking_at_a_lock_is_not_in_the_way_of_another_look(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert not run.is_locked()
    with run.lock():
        assert run.is_locked()
    assert not run.is_locked()
    with open(tmp_path / ".lock") as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # who looks at the same moment
        assert not run.is_locked()


def test_the_first_failure_is_told_beside_one_that_cannot_be_read(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.first_failure() is None
    for rank in (1, 2):
        write_json(run.failure(rank), Status(phase="failed", time=float(-rank), pid=rank, message=f"of {rank}"))
    run.failure(3).symlink_to(tmp_path / "forgotten")  # there when listed, and gone when read
    found = run.first_failure()
    assert found is not None
    assert found.message == "of 2"
