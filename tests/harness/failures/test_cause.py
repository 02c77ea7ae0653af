"""Which process's failure is told as the run's."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector.runs.folder import RunDir
from detector.runs.status import Status
from detector.storage.files import write_json
from harness.failures.cause import cause
from harness.status.observe import NoScheduler, see

LOST = "RuntimeError: [gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer."
NAMED = "DataError: 17.jpg (image id 17) is no image"


def said(message: str, time: float, phase: str = "failed") -> Status:
    return Status(phase=phase, time=time, pid=1, message=message)  # type: ignore[arg-type]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.root.mkdir()
    return run


def test_nobody_failed(run: RunDir) -> None:
    assert cause(run, None) is None
    assert cause(run, said("", 1.0, "training")) is None
    assert cause(run, said("stopped at iteration 3", 1.0, "stopped")) is None


@pytest.mark.parametrize("others_time", [1.0, 3.0])
def test_a_lost_connection_is_the_consequence_of_another_failure(run: RunDir, others_time: float) -> None:
    write_json(run.failure(1), said(LOST, others_time))
    own = said(NAMED, 2.0)
    assert cause(run, own) == own
    write_json(run.failure(1), said(NAMED, others_time))
    assert cause(run, said(LOST, 2.0)) == said(NAMED, others_time)


@pytest.mark.parametrize("first", range(1, 8))
def test_of_others_the_first_counts(run: RunDir, first: int) -> None:
    for rank in range(1, 8):
        write_json(run.failure(rank), said("ValueError: a later one", 2.0))
    write_json(run.failure(first), said("ValueError: the first", 1.0))
    assert cause(run, None) == said("ValueError: the first", 1.0)
    assert cause(run, said(LOST, 0.0)) == said("ValueError: the first", 1.0)


def test_what_is_written_into_the_run_for_it_counts(run: RunDir) -> None:
    write_json(run.failure(1), said("RuntimeError: a shutdown half done", 1.0))
    own = said("a process was killed (signal 9); given up: no progress in 3 retries", 2.0)
    assert cause(run, own) == own


def test_status_tells_the_failure_and_not_its_consequence(run: RunDir) -> None:
    write_json(run.status, said(LOST, 2.0))
    write_json(run.failure(1), said(NAMED, 3.0))
    seen = see(run, (), NoScheduler())
    assert seen.status is not None
    assert seen.status.message == NAMED
