"""``harness status``, ``run --retry-failed`` and ``cancel``: every state, by what is seen of a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as with_changes

from detector.job import EvalJob
from detector.record import Code, Record, SplitFingerprint
from detector.rundir import Phase, RunDir, Status, write_json
from harness import cli_status, launch
from harness.cancel import is_cancelled, note_cancelled, stop_runs
from harness.launch import Failure, Slot, run_local
from harness.registry import Registry
from harness.resolve import eval_job, resolve
from harness.run_state import FAILED, STALE_SECONDS, RunState, SchedulerState, Seen, decide, describe, is_settled
from tests.command import invoke
from tests.micro import micro_assignment, micro_job, write_experiments
from tests.workplace import WAIT_SECONDS, Workplace, make_workplace

NOW = 1_000_000.0


def beat(phase: Phase, *, age: float = 1.0, **values: Any) -> Status:
    return Status(phase=phase, time=NOW - age, pid=1, **{"iterations": 100, **values})


HALF = {"iteration": 50, "seconds_per_iteration": 0.92}
OLD = STALE_SECONDS + 1
GONE, RUNS = SchedulerState("gone"), SchedulerState("running")

CASES: list[tuple[Seen, str]] = [
    (Seen(started=False), "not started"),
    (Seen(started=False, recorded=True, ap=23.44), "done (AP 23.4)"),
    (Seen(recorded=True, ap=None), "done (AP -)"),
    (Seen(recorded=True, ap=23.44, evaluations="1 of 2 evaluations"), "done (AP 23.4; 1 of 2 evaluations)"),
    (Seen(), "not started"),  # an empty folder
    (Seen(launched=NOW - 3), "starting, just launched"),
    (Seen(launched=NOW - OLD), "lost? no word for 10:01, no process here; if it runs nowhere else: resumes"),
    (Seen(locked=True), "starting"),
    (Seen(locked=True, status=beat("starting")), "starting"),
    (Seen(locked=True, status=beat("failed", message="last week")), "starting"),
    # 50 of 100 iterations at 0.92 s, and the evaluation, 8 parts in 100 of the whole: 54 s less the second since then.
    (Seen(locked=True, status=beat("training", **HALF)), "running 50%, ETA 0:53, AP so far -"),
    (Seen(locked=True, status=beat("training", iteration=1)), "running 1%, ETA ?, AP so far -"),
    (
        Seen(locked=True, status=beat("training", age=OLD, **HALF)),
        "running 50%, ETA 0:00, AP so far -, but no word for",
    ),
    (Seen(locked=True, status=beat("evaluating", progress=0.4)), "evaluating 40%"),
    (Seen(status=beat("training", **HALF)), "running 50%, ETA 0:53, AP so far -, last word 0:01 ago, no process here"),
    (
        Seen(status=beat("training", age=OLD)),
        "lost? no word for 10:01, no process here; if it runs nowhere else: resumes",
    ),
    (
        Seen(status=beat("training", age=OLD), tail="oom-kill"),
        "lost? no word for 10:01, no process here (perhaps: host",
    ),
    (Seen(status=beat("stopped", message="saved")), "stopped (saved; resumes with the same command)"),
    (Seen(status=beat("done"), evaluations="0 of 1 evaluations"), "stopped (trained, 0 of 1 evaluations; resumes"),
    (Seen(status=beat("failed", message="OSError: [Errno 28] No space left")), "failed (unknown): OSError"),
    (Seen(status=beat("failed", message="No space left on device")), "failed (disk full): No space left on device"),
    (Seen(status=beat("training"), other_rank="NCCL error"), "failed (network): NCCL error"),
    (Seen(tail="x\nModuleNotFoundError: No module named 'a'\n"), "failed (import): ModuleNotFoundError: No module"),
    (Seen(tail="Traceback (most recent call last):\nKeyError: 1\n"), "failed (unknown): KeyError: 1"),
    (Seen(scheduler=SchedulerState("pending", "Priority")), "pending (Priority)"),
    (Seen(started=False, scheduler=SchedulerState("pending")), "pending (no reason given)"),
    (Seen(scheduler=SchedulerState("pending", "BeginTime", 2), status=beat("stopped")), "requeued 2x (BeginTime)"),
    (
        Seen(scheduler=SchedulerState("running", requeues=2), status=beat("training", age=3, iteration=43)),
        "running 43%, ETA ?, AP so far -, requeued 2x",
    ),
    (Seen(scheduler=RUNS, status=beat("stopped")), "starting"),
    (Seen(scheduler=GONE, status=beat("training")), "lost: gone from the queue; resumes with the same command"),
    (Seen(scheduler=SchedulerState("gone", "NODE_FAIL"), status=beat("training")), "failed (node): NODE_FAIL"),
    (Seen(scheduler=SchedulerState("gone", "", 0, 137), status=beat("training")), "failed (killed): without a word"),
    (Seen(scheduler=SchedulerState("gone", "", 0, 140)), "failed (killed before start): without a word"),
    (Seen(scheduler=GONE, status=beat("stopped", message="saved")), "stopped (saved; resumes with the same command)"),
    (Seen(scheduler=GONE, recorded=True, ap=1.0), "done (AP 1.0)"),
]


@pytest.mark.parametrize(("seen", "expected"), CASES)
def test_decide_gives_the_state_of_what_was_seen(seen: Seen, expected: str) -> None:
    assert describe(decide(seen, NOW)).startswith(expected)


def test_lost_without_a_scheduler_takes_ten_silent_minutes() -> None:
    silent = Seen(status=beat("training", age=STALE_SECONDS - 1))
    assert decide(silent, NOW).kind == "running"
    assert not decide(silent, NOW).here
    assert decide(silent, NOW + 1).kind == "lost?"
    assert "lost?" in FAILED


def test_a_long_message_is_one_line_cut() -> None:
    state = decide(Seen(status=beat("failed", message="a" * 200 + "\nb")), NOW)
    assert len(describe(state)) < 120
    assert state.message.endswith("\nb")


def test_is_settled_only_without_anything_to_wait_for() -> None:
    assert is_settled([RunState("done"), RunState("failed"), RunState("lost?")])
    for kind in ("not started", "pending", "requeued", "starting", "running", "evaluating", "stopped"):
        assert not is_settled([RunState("done"), RunState(kind)])


@pytest.fixture
def experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_folders: None) -> Path:
    folder = write_experiments(tmp_path / "experiments")
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(folder))
    return folder


def start_folder(job: EvalJob, runs: Path, status: Status | None = None) -> RunDir:
    """As a worker leaves it."""
    run = RunDir(runs / job.train.id)
    write_json(run.job, job.train)
    (run.root / ".lock").touch()
    if status is not None:
        write_json(run.status, with_changes(status, time=status.time - NOW + time.time()))
    return run


def record_of(job: EvalJob, ap: float) -> Record:
    split = SplitFingerprint(images=1, boxes=1, sha256="0")
    return Record(
        format=1,
        eval_id=job.id,
        train_id=job.train.id,
        profile="tiny",
        job=job,
        metrics={"AP": ap},
        train_split=split,
        test_split=split,
        environment={},
        code=Code(version="0", commit=None, modified=None),
        train_seconds=1.0,
        eval_seconds=1.0,
        finished="2024-05-01T10:00:00+00:00",
        notes=(),
    )


def states(*arguments: str) -> dict[str, str]:
    """By row and seed, as --json says."""
    listed = json.loads(invoke("status", *arguments, "--profile", "tiny", "--json").stdout)["runs"]
    return {f"{run['rows'][-1]} {run['seed']}": run["state"] for run in listed}


def test_status_lists_a_targets_runs_with_every_seed_that_is_there(experiments: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    job = micro_job(experiments, "table2/L6", 3)
    run = start_folder(job, runs, beat("done"))
    write_json(run.record(job.id), record_of(job, 23.44))
    start_folder(micro_job(experiments, "table2/focal"), runs, beat("failed", message="CUDA out of memory"))
    with start_folder(micro_job(experiments, "table2/L4"), runs, beat("training", **HALF)).lock():
        found = states("table2")
        text = invoke("status", "table2", "--profile", "tiny").stdout
    assert {key: value for key, value in found.items() if value != "not started"} == {
        "table2/L6 3": "done",
        "table2/focal 0": "failed",
        "table2/L4 0": "running",
    }
    assert found["table2/L6 0"] == "not started"
    lines = {line.split()[0]: line for line in text.splitlines()}
    assert "running 50%, ETA 0:5" in lines["table2/L4"]
    assert "done (AP 23.4)" in text
    assert "failed (GPU memory): CUDA out of memory" in lines["table2/focal"]
    assert "next: nvidia-smi; harness run table2/focal --profile tiny --retry-failed" in text
    assert "8 runs" not in text  # seed 3 of L6 and its seed 0
    assert "9 runs: 6 not started, 1 running, 1 done, 1 failed" in text


def test_status_without_a_target_lists_what_was_started_and_counts_the_rest(experiments: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert "0 runs" in invoke("status", "--profile", "tiny").stdout
    job = micro_job(experiments, "table2/L6")
    start_folder(job, runs, beat("stopped", message="saved"))
    other = with_changes(job.train, optimizer=with_changes(job.train.optimizer, lr=0.5))
    start_folder(with_changes(job, train=other), runs)
    (runs / "0123456789abcdef").mkdir()
    broken = runs / "0000000000000000" / "job.json"
    broken.parent.mkdir()
    broken.write_text("{")
    (runs / "data").mkdir()
    assert list(states().values()) == ["stopped"]
    text = invoke("status", "--profile", "tiny").stdout
    assert "1 run: 1 stopped" in text
    assert "profile tiny: 2." in text
    assert f"{broken} cannot be read" in text
    changed = invoke("status", "table2/L6", "--profile", "tiny", "--set", "optimizer.lr=0.5").stdout
    assert other.id in changed


def test_status_of_a_training_that_serves_rows_with_other_tests(experiments: Path, tmp_path: Path) -> None:
    job = micro_job(experiments, "table2/L6")
    run = start_folder(job, tmp_path / "runs", beat("done"))
    write_json(run.record(job.id), record_of(job, 7.0))
    assert "done (AP 7.0; 1 of 2 evaluations)" in invoke("status", "--profile", "tiny").stdout
    assert states("table2/L6") == {"table2/L6 0": "done"}
    other = invoke("status", "ablations/dr-base-test", "--profile", "tiny").stdout
    assert "stopped (trained, 0 of 1 evaluations; resumes with the same command)" in other
    both = json.loads(invoke("status", "ablations", "--profile", "tiny", "--json").stdout)["runs"]
    assert [item["state"] for item in both if item["training"] == job.train.id] == ["stopped"]


def test_status_of_a_target_needs_every_evaluation(experiments: Path, tmp_path: Path) -> None:
    jobs = [micro_job(experiments, ref) for ref in ("table4/dr-r101", "table4/dr-r101-ms")]
    assert len({job.train for job in jobs}) == 1
    run = start_folder(jobs[0], tmp_path / "runs", beat("done"))
    write_json(run.record(jobs[0].id), record_of(jobs[0], 7.0))
    text = invoke("status", "table4", "--profile", "tiny").stdout
    assert "stopped (trained, 1 of 2 evaluations; resumes" in text
    write_json(run.record(jobs[1].id), record_of(jobs[1], 8.0))
    assert "done (AP 7.0)" in invoke("status", "table4", "--profile", "tiny").stdout


def test_status_finds_runs_of_any_data_folder_and_of_a_named_one(experiments: Path, tmp_path: Path) -> None:
    registry = Registry(experiments)
    job = eval_job(resolve(registry, "table2/L6", registry.profile("smoke")), 0)
    data = with_changes(job.train.data, train_sha256="a" * 64, test_sha256="b" * 64)
    start_folder(with_changes(job, train=with_changes(job.train, data=data)), tmp_path / "runs", beat("stopped"))
    listed = json.loads(invoke("status", "table2/L6", "--profile", "smoke", "--json").stdout)["runs"]
    assert [run["state"] for run in listed] == ["stopped"]
    listed = json.loads(invoke("status", "table2/focal", "--profile", "smoke", "--json").stdout)["runs"]
    assert [(run["state"], run["training"]) for run in listed] == [("not started", None)]


def test_status_knows_a_run_that_failed_before_its_first_word(experiments: Path, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "runs" / micro_job(experiments, "table2/L6", 1).train.id)
    run.submitit.mkdir(parents=True)
    (run.submitit / "7_0_log.out").write_text("Traceback (most recent call last):\nImportError: no\n")
    assert list(states().values()) == ["failed"]
    assert "failed (import): ImportError: no" in invoke("status", "table2/L6", "-n", "2", "--profile", "tiny").stdout


def test_status_of_a_committed_record_is_done_without_a_run(experiments: Path, tmp_path: Path) -> None:
    job = micro_job(experiments, "table2/L6")
    write_json(tmp_path / "results" / "records" / "tiny" / f"{job.id}.json", record_of(job, 7.04))
    assert "done (AP 7.0)" in invoke("status", "table2/L6", "--profile", "tiny").stdout


def test_status_of_a_damaged_heartbeat_is_a_failure_with_advice(experiments: Path, tmp_path: Path) -> None:
    run = start_folder(micro_job(experiments, "table2/L6"), tmp_path / "runs")
    run.status.write_text("{")
    assert "failed (record)" in invoke("status", "table2/L6", "--profile", "tiny").stdout


def test_watch_without_a_terminal_prints_changes_until_all_are_done(
    experiments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_status, "WATCH_SECONDS", 0.1)
    job = micro_job(experiments, "table2/L6")
    run = start_folder(job, tmp_path / "runs", beat("training", iteration=10))

    def finish() -> None:
        with run.lock():
            locked.set()
            for iteration in (11, 60):
                time.sleep(0.4)
                write_json(
                    run.status, Status(phase="training", time=time.time(), pid=1, iteration=iteration, iterations=100)
                )
            time.sleep(0.4)
            write_json(run.record(job.id), record_of(job, 5.0))

    locked = threading.Event()
    thread = threading.Thread(target=finish)
    thread.start()
    assert locked.wait(5)
    text = invoke("status", "table2/L6", "--profile", "tiny", "--watch").stdout
    thread.join()
    assert [line.split(job.train.id)[1].split()[1] for line in text.splitlines() if "%" in line] == ["10%,", "60%,"]
    assert text.count("done (AP 5.0)") == 2  # as a change, and in the last listing


def test_status_loads_neither_torch_nor_pandas() -> None:
    code = (
        "import sys; from harness import cli_status; "
        "import harness.status, harness.cancel, harness.run_logs, harness.run_folders, harness.failure_report; "
        "sys.exit(len({'torch', 'pandas', 'scipy', 'submitit'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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


def test_stop_runs_never_hits_a_process_that_does_not_hold_the_run(
    holder: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        monkeypatch.setattr("harness.cancel.HEARTBEAT_SECONDS", 0.5)
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
