"""A training of two processes of which one gets no further: it is ended, its stacks are kept, and it goes on."""

from __future__ import annotations

import sys
from pathlib import Path

import cloudpickle  # what submitit pickles with: by value, so that the child needs no tests package
import pytest

from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.runs.status import Status
from detector.worker.worker import Worker
from harness.launch import local as launch
from harness.launch.local import Slot, run_local
from support.micro import micro_assignment, micro_data, micro_job, write_experiments


class HoldsPythonsLock(Worker):
    """Rank 1 stops at its first start, amid the training, and lets no other thread of it run either."""

    def __call__(self) -> None:
        import ctypes
        import os
        import threading
        import time
        from pathlib import Path

        from detector.runs.folder import RunDir

        run = RunDir(Path(self.assignment.run_dir))
        mark = run.root.parent / "was hung"

        def be_impatient() -> None:
            while not any(run.checkpoints.glob("*.pt")):
                time.sleep(0.01)
            os.environ["HARNESS_SILENCE_SECONDS"] = "4"  # not before: torch is read for longer than that

        def hold_pythons_lock() -> None:
            while (status := run.read_status()) is None or status.silence > 100:
                time.sleep(0.01)
            mark.touch()
            ctypes.PyDLL(None).sleep(600)

        if not mark.exists():
            main = os.environ["SUBMITIT_LOCAL_GLOBALID"] == "0"
            threading.Thread(target=be_impatient if main else hold_pythons_lock, daemon=True).start()
        super().__call__()


class View:
    def __init__(self) -> None:
        self.said: list[str] = []

    def update(self, train_id: str, status: Status | None) -> None: ...

    def note(self, train_id: str, text: str) -> None:
        self.said.append(text)

    def finish(self, train_id: str, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def long_job(tmp_path: Path) -> EvalJob:
    return micro_job(write_experiments(tmp_path / "experiments", iterations=400))


@pytest.mark.slow  # two starts of two processes
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell the children")
def test_a_training_whose_second_process_hangs_shows_its_stacks_and_is_finished(
    long_job: EvalJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(launch, "Worker", HoldsPythonsLock)
    monkeypatch.setattr(launch, "processes_for", lambda groups, gpus: 2)
    run, data, view = RunDir(tmp_path / "runs" / "0"), micro_data(tmp_path / "data", long_job), View()
    assert run_local([micro_assignment(long_job, run.root, data)], [Slot(())], view) == []
    log = run.log.read_text()
    first, second = log.index("stacks of rank 0:"), log.index("stacks of rank 1:")
    assert "detector/training/train.py" in log[first:second]
    assert "hold_pythons_lock" in log[second:]
    assert "resumed after iteration" in log[second:]
    assert "no progress for 0 min; it starts again from 0" in view.said[0]
    assert view.said[-1] == "done"
    assert run.read_record(long_job.id) is not None
