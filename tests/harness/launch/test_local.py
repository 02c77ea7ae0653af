"""Sharing a machine between runs, following a run that another command has, and stopping without losing anything."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from rich.console import Console

from detector.runs.assignment import Assignment
from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.runs.status import Status
from detector.storage.files import write_json
from harness.console.runs_view import RunsView
from harness.launch import local as launch
from harness.launch.local import Slot, _Active, make_slots, run_local
from harness.machine import processes_for, visible_gpus
from harness.registry.declarations import Execution
from support.micro import micro_assignment, micro_data, micro_job, write_experiments

WAIT_SECONDS = 180


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> EvalJob:
    return micro_job(write_experiments(tmp_path_factory.mktemp("registry") / "experiments"))


def execution(**changes: Any) -> Execution:
    values = {
        **{"gpus_per_run": 1, "threads": 2, "memory_gb": 4.0, "loader_workers": 0},
        **{"checkpoint_every": 1, "groups_per_forward": 1, **changes},
    }
    return msgspec.convert(values, Execution)


@pytest.mark.parametrize(
    ("gpus", "per_run", "runs", "expected"),
    [
        ([0, 1, 2, 3], 1, 9, [(0,), (1,), (2,), (3,)]),
        ([0, 1, 2, 3], 1, 2, [(0,), (1,)]),  # no more slots than runs
        ([0, 1, 2, 3, 4], 2, 9, [(0, 1), (2, 3)]),  # the fifth is too few for a run
        ([2, 5], "all", 9, [(2, 5)]),
        ([3], 8, 9, [(3,)]),  # fewer than wanted: one run on all
        ([0, 1], 0, 9, [()] * 3),  # a CPU profile leaves the GPUs alone: 7 cores of 2 threads, 20 GB of 4
        ([], "all", 9, [()] * 3),
        ([], 1, 1, [()]),
    ],
)
def test_make_slots_shares_gpus_else_cores(
    monkeypatch: pytest.MonkeyPatch, gpus: list[int], per_run: int | str, runs: int, expected: list[tuple[int, ...]]
) -> None:
    monkeypatch.setattr(launch, "visible_gpus", lambda: gpus)
    monkeypatch.setattr(launch, "usable_cores", lambda: 7)
    monkeypatch.setattr(launch, "free_memory_gb", lambda: 20.0)
    assert make_slots(execution(gpus_per_run=per_run), runs=runs) == [Slot(gpus) for gpus in expected]


@pytest.mark.parametrize(("cores", "memory", "expected"), [(16, 9.0, 2), (16, 1.0, 1), (1, 64.0, 1), (6, 64.0, 3)])
def test_make_slots_is_bound_by_memory_and_never_empty(
    monkeypatch: pytest.MonkeyPatch, cores: int, memory: float, expected: int
) -> None:
    monkeypatch.setattr(launch, "usable_cores", lambda: cores)
    monkeypatch.setattr(launch, "free_memory_gb", lambda: memory)
    assert len(make_slots(execution(gpus_per_run=0), runs=99)) == expected


@pytest.mark.parametrize(
    ("groups", "gpus", "expected"), [(8, 8, 8), (8, 3, 2), (8, 7, 4), (2, 8, 2), (6, 4, 3), (1, 8, 1), (8, 0, 1)]
)
def test_processes_for_divides_the_groups(groups: int, gpus: int, expected: int) -> None:
    assert processes_for(groups, gpus) == expected


@pytest.mark.parametrize(
    ("restricted", "expected"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("2,0", [2, 0]),
        ("1,-1,0", [1]),  # as for CUDA: what follows an unknown device is not seen
        ("GPU-bb,0", [1, 0]),
        ("GPU-b", [1]),
        ("GPU-", []),  # more than one GPU's name begins with it
        ("GPU-zz", []),
    ],
)
def test_visible_gpus_reads_indices_and_uuids(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, restricted: str | None, expected: list[int]
) -> None:
    tool = tmp_path / "nvidia-smi"
    lines = "".join(f"GPU {i}: NVIDIA Some (UUID: {uuid})\\n" for i, uuid in enumerate(("GPU-aa", "GPU-bb", "GPU-cc")))
    tool.write_text(f"#!/bin/sh\nprintf '{lines}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if restricted is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", restricted)
    assert visible_gpus() == expected


def test_status_of_an_earlier_start_is_not_taken_for_this_one(job: EvalJob, tmp_path: Path) -> None:
    run, assignment = RunDir(tmp_path), micro_assignment(job, tmp_path, tmp_path)
    write_json(run.status, Status(phase="failed", time=1_000.0, pid=1, message="last week"))
    ours = _Active(assignment, run, object(), Slot(()), started=2_000.0)
    assert ours.status() is None
    followed = _Active(assignment, run, None, Slot(()), started=2_000.0)
    assert followed.status() is not None
    write_json(run.status, Status(phase="training", time=2_001.0, pid=1))
    assert ours.status() is not None


def test_a_failure_is_told_in_the_words_of_the_process_that_caused_it(job: EvalJob, tmp_path: Path) -> None:
    run, assignment = RunDir(tmp_path), micro_assignment(job, tmp_path, tmp_path)
    lost, named = "RuntimeError: [gloo/transport/tcp/pair.cc:545] Connection reset by peer", "DataError: 17.jpg"
    write_json(run.status, Status(phase="failed", time=2_001.0, pid=1, message=lost))
    write_json(run.failure(1), Status(phase="failed", time=2_002.0, pid=2, message=named))
    ended = SimpleNamespace(paths=SimpleNamespace(stdout=tmp_path / "out"))
    failure = launch._failure(_Active(assignment, run, ended, Slot(()), started=2_000.0), cancelled=False)
    assert (failure.message, failure.stopped) == (named, False)


def slow_to_save(folder: Path) -> type:
    """A worker that saves for longer than submitit's own ``cancel`` waits (defined here: it is pickled by value)."""

    class SlowToSave:
        def __init__(self, assignment: Assignment) -> None:
            self.folder = str(folder)

        def __call__(self) -> None:
            import signal
            import sys
            import time
            from pathlib import Path

            signals: list[int] = []
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda received, frame: signals.append(received))
            Path(self.folder, "started").touch()
            deadline = time.monotonic() + 30
            while not signals and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(1.6)
            Path(self.folder, "saved").touch()
            sys.exit(130)

    return SlowToSave


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_run_local_lets_runs_save_before_it_passes_the_interrupt_or_its_own_error_on(
    monkeypatch: pytest.MonkeyPatch, job: EvalJob, tmp_path: Path, error: type[BaseException]
) -> None:
    monkeypatch.setattr(launch, "Worker", slow_to_save(tmp_path))

    class Interrupting:
        def update(self, train_id: str, status: Status | None) -> None:
            if (tmp_path / "started").exists():
                # A terminal's Ctrl-C reaches the children too; submitit's controller must not kill its tasks for it.
                for path in RunDir(tmp_path).submitit.glob("*_submitted.pkl"):
                    os.kill(int(path.name.split("_")[0]), signal.SIGINT)
                raise error

        def finish(self, train_id: str, text: str) -> None:
            raise AssertionError(text)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(error):
        run_local([micro_assignment(job, tmp_path, tmp_path)], [Slot(())], Interrupting())
    assert (tmp_path / "saved").exists()
    assert signal.getsignal(signal.SIGINT) == before


def start_worker(assignment: Assignment) -> subprocess.Popen[str]:
    code = (
        "import sys, msgspec; from detector.worker.worker import Assignment, Worker; "
        "Worker(msgspec.json.decode(sys.argv[1], type=Assignment))()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, msgspec.json.encode(assignment).decode()], stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_a_worker_that_comes_second_waits_and_finishes_what_the_first_leaves(job: EvalJob, tmp_path: Path) -> None:
    run, data = RunDir(tmp_path / "run"), micro_data(tmp_path / "data", job)
    with run.lock():
        process = start_worker(micro_assignment(job, run.root, data))
        time.sleep(1.5)
        assert process.poll() is None
        assert run.read_status() is None  # the status is the first one's
    _, err = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0, err
    assert run.read_record(job.id) is not None


def test_a_worker_that_waits_can_be_stopped(job: EvalJob, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    with run.lock():
        process = start_worker(micro_assignment(job, run.root, tmp_path))
        time.sleep(1.5)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 130, err
    assert run.read_status() is None


def test_eta_of_a_resumed_run_does_not_count_what_was_done_before() -> None:
    view = RunsView({"a": "run"}, Console(quiet=True))
    view.started -= 100.0
    view.update("a", Status(phase="starting", time=0.0, pid=1, iterations=100))
    view.update("a", Status(phase="training", time=1.0, pid=1, iteration=50, iterations=100))
    assert view._summary().startswith("ETA ?")  # nothing gained yet
    view.update("a", Status(phase="training", time=2.0, pid=1, iteration=75, iterations=100))
    # 25 of 100 iterations are 0.23 of the run, gained in 100 s; 0.31 are left.
    assert view._summary().startswith("ETA 2:15,")
