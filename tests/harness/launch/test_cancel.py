"""``harness cancel`` and ``run --retry-failed``: who is asked to stop, and what is run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from detector.runs.folder import RunDir
from detector.runs.status import Status
from detector.storage.files import write_json
from harness.launch import cancel as cancelling
from harness.launch import local as launch
from harness.launch.cancel import is_cancelled, note_cancelled, stop_runs
from harness.launch.hangs import children, end_processes
from harness.launch.local import Failure, Slot, run_local
from support.micro import micro_assignment, micro_job, write_experiments
from support.workplace import WAIT_SECONDS, Workplace, make_workplace
from tests.command import invoke


@pytest.fixture
def experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_folders: None) -> Path:
    folder = write_experiments(tmp_path / "experiments")
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(folder))
    return folder


class Silent:
    def update(self, train_id: str, status: Status | None) -> None: ...

    def finish(self, train_id: str, text: str) -> None: ...


class DiesSilently:
    def __init__(self, assignment: Any) -> None:
        pass

    def __call__(self) -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)


def test_run_local_says_in_the_heartbeat_that_a_process_died(
    experiments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cloudpickle  # what submitit pickles with: by value, so that the child needs no tests package

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(launch, "Worker", DiesSilently)
    job = micro_job(experiments)
    run = RunDir(tmp_path / "runs" / job.train.id)
    (failure,) = run_local([micro_assignment(job, run.root, tmp_path)], [Slot(())], Silent())
    assert not failure.stopped
    status = run.read_status()
    assert status is not None
    assert (status.phase, status.message) == ("failed", failure.message)
    assert "failed (killed before start)" in invoke("status", "table2/L6", "--profile", "tiny").stdout


def test_run_local_does_not_start_what_was_cancelled_meanwhile(
    experiments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, job = tmp_path / "runs", micro_job(experiments, seed=1)
    note_cancelled(runs, [micro_job(experiments, "table2/focal").train])
    assignment = micro_assignment(job, runs / job.train.id, tmp_path)

    def cancel_then_start(*arguments: Any) -> Any:
        raise AssertionError("started")

    monkeypatch.setattr(launch, "_start", cancel_then_start)
    with pytest.raises(AssertionError, match="started"):  # another row's note
        run_local([assignment], [Slot(())], Silent())
    note_cancelled(runs, [micro_job(experiments, seed=0).train])
    with pytest.raises(AssertionError, match="started"):  # an older note of this row
        run_local([assignment], [Slot(())], Silent())
    for path in (runs / "cancelled").iterdir():
        path.write_text(str(time.time() + 60))  # while the launcher is at work
    (failure,) = run_local([assignment], [Slot(())], Silent())
    assert failure == Failure(job.train.id, launch.NOT_STARTED, runs / job.train.id / "log.txt", stopped=True)


def test_is_cancelled_needs_a_note_of_the_row_after_the_time(experiments: Path, tmp_path: Path) -> None:
    train = micro_job(experiments, seed=4).train
    assert not is_cancelled(tmp_path, train, since=0.0)
    note_cancelled(tmp_path, [micro_job(experiments, seed=0).train])
    assert is_cancelled(tmp_path, train, since=time.time() - 10)
    assert not is_cancelled(tmp_path, train, since=time.time() + 10)
    for path in (tmp_path / "cancelled").iterdir():
        path.write_text("not a number")
    assert not is_cancelled(tmp_path, train, since=0.0)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the run's lock and ends cleanly at SIGTERM."""
    code = (
        "import signal, sys, time, fcntl; from pathlib import Path\n"
        "file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX)\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(130)); print('ready', flush=True); time.sleep(60)"
    )
    (tmp_path / "run").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run" / ".lock")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


def test_stop_runs_asks_the_process_of_the_heartbeat_that_holds_the_lock(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    run, said = RunDir(tmp_path / "run"), list[str]()
    write_json(run.status, Status(phase="training", time=time.time(), pid=holder.pid))
    assert stop_runs({run.root: "a run"}, said.append)
    assert holder.wait(10) == 130
    assert said == [f"a run: asked process {holder.pid} to save and stop", "a run: ended"]
    assert not stop_runs({run.root: "a run"}, said.append)


def test_stop_runs_ends_a_process_that_has_made_no_progress_for_too_long(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    run, said, long_ago = RunDir(tmp_path / "run"), list[str](), time.time() - 3600
    status = Status(phase="training", time=time.time(), pid=holder.pid, progressed=long_ago, silence=600.0)
    write_json(run.status, status)
    assert stop_runs({run.root: "a run"}, said.append)
    assert holder.wait(10) == -signal.SIGKILL
    assert said == [f"a run: ended process {holder.pid}, which had made no progress for 60 min", "a run: ended"]


STARTS_TWO = """
import subprocess, sys
two = [subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL) for _ in range(2)]
print(two[0].pid, flush=True)
print([child.wait() for child in two])
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not tell")
@pytest.mark.parametrize(("of_launcher", "ends"), [(True, "[-9, -9]"), (False, "[-9, ")])
def test_with_a_hung_process_the_others_of_its_run_are_ended_and_nobody_else(of_launcher: bool, ends: str) -> None:
    name = ["submitit.local._local"] if of_launcher else []
    with subprocess.Popen([sys.executable, "-c", STARTS_TWO, *name], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        found = cancelling._with_siblings(int(parent.stdout.readline()))
        assert len(found) == (2 if of_launcher else 1)
        end_processes(found)
        for left in children(parent.pid):
            os.kill(left, signal.SIGTERM)
        assert parent.stdout.read().startswith(ends)


def test_stop_runs_never_hits_a_process_that_does_not_hold_the_run(
    holder: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        monkeypatch.setattr("harness.launch.cancel.HEARTBEAT_SECONDS", 0.5)
        run, said = RunDir(tmp_path / "run"), list[str]()
        write_json(run.status, Status(phase="training", time=time.time(), pid=stranger.pid))
        assert stop_runs({run.root: "a run"}, said.append)
        assert said == ["a run: its process is on another machine, or not yours; stop it where it runs."]
        assert stranger.poll() is None
        assert holder.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_cancel_with_nothing_running_says_so(experiments: Path) -> None:
    assert (
        "Nothing of table2, profile tiny, runs here or waits in a queue"
        in invoke("cancel", "table2", "--profile", "tiny").stderr
    )


@pytest.mark.slow
def test_cancel_stops_a_run_and_what_waits_and_retry_failed_leaves_them_alone(tmp_path: Path) -> None:
    place = make_workplace(tmp_path, iterations=4000)
    process = place.start("run", "table2/L6", "--profile", "tiny", "--seeds", "40")
    wait_for_training(place)
    text = place.harness("cancel", "table2/L6", "--profile", "tiny")
    assert "asked process" in text
    assert "the state is saved; resumes with the same command" in text
    _, err = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 130, err
    assert launch.NOT_STARTED in err
    assert "The same command goes on from there" in err
    assert not place.run_dir().is_locked()
    assert list(place.run_dir().checkpoints.glob("*.pt"))
    text = place.harness("run", "table2/L6", "--profile", "tiny", "--retry-failed")
    assert "0 of them failed" in text


@pytest.mark.slow
def test_retry_failed_runs_what_was_killed_and_not_what_was_never_started(tmp_path: Path) -> None:
    place = make_workplace(tmp_path, iterations=60)
    process = place.start("run", "table2/L6", "--profile", "tiny")
    os.kill(wait_for_training(place).pid, signal.SIGKILL)
    _, err = process.communicate(timeout=WAIT_SECONDS)
    assert "killed: The process was killed" in err
    assert "next: harness run table2/L6 --profile tiny --retry-failed" in err
    assert "failed (killed)" in place.harness("status", "table2/L6", "--profile", "tiny")
    text = place.harness("run", "table2", "--profile", "tiny", "--retry-failed")
    assert "8 runs, 0 done, 8 to do" in text
    assert "1 of them failed" in text
    found = json.loads(place.harness("status", "table2", "--profile", "tiny", "--json"))["runs"]
    assert sorted(run["state"] for run in found) == ["done", *["not started"] * 7]


def wait_for_training(place: Workplace) -> Status:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        status = place.run_dir().read_status()
        if status is not None and status.phase == "training":
            return status
        time.sleep(0.02)
    raise AssertionError("no training")
