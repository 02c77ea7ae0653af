"""``harness status``: one line per run, whatever its folder holds."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as with_changes

from detector.runs.code import Code
from detector.runs.findings import Health
from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.runs.record import Record, SplitFingerprint, content_hash
from detector.runs.status import Phase, Status
from detector.storage.files import write_json
from harness.cli.runs import watch as cli_watch
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve
from harness.status.kinds import STALE_SECONDS
from support.micro import micro_job, write_experiments
from tests.command import invoke

NOW = 1_000_000.0


def beat(phase: Phase, *, age: float = 1.0, **values: Any) -> Status:
    return Status(phase=phase, time=NOW - age, pid=1, **{"iterations": 100, **values})


HALF = {"iteration": 50, "seconds_per_iteration": 0.92, "data_share": 0.01, "device_busy": 0.94}
OLD = STALE_SECONDS + 1


@pytest.fixture
def experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_folders: None) -> Path:
    folder = write_experiments(tmp_path / "experiments")
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(folder))
    return folder


def start_folder(job: EvalJob, runs: Path, status: Status | None = None) -> RunDir:
    """A folder as a worker leaves it."""
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
    below = text.splitlines()[text.splitlines().index(lines["table2/L4"]) + 1]
    assert below == "  0.920 s per iteration, data 1%, GPU 94%"
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


def test_status_of_a_done_run_says_what_was_wrong_with_it(experiments: Path, tmp_path: Path) -> None:
    job = micro_job(experiments)
    health = (Health(name="no learning", message="the classification loss is 2.033 at the end"),)
    record = with_changes(record_of(job, 0.0), format=2, health=health)
    record = with_changes(record, sha256=content_hash(record))
    write_json(tmp_path / "results" / "records" / "tiny" / f"{job.id}.json", record)
    text = invoke("status", "table2/L6", "--profile", "tiny").stdout
    assert "done (AP 0.0)\n  health: no learning: the classification loss is 2.033 at the end\n" in text


def test_status_of_a_damaged_heartbeat_is_a_failure_with_advice(experiments: Path, tmp_path: Path) -> None:
    run = start_folder(micro_job(experiments, "table2/L6"), tmp_path / "runs")
    run.status.write_text("{")
    assert "failed (record)" in invoke("status", "table2/L6", "--profile", "tiny").stdout


def test_watch_without_a_terminal_prints_changes_until_all_are_done(
    experiments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = micro_job(experiments, "table2/L6")
    run = start_folder(job, tmp_path / "runs", beat("training", iteration=10))
    lock = ExitStack()

    def finish() -> None:
        write_json(run.record(job.id), record_of(job, 5.0))
        lock.close()

    def go_on(iteration: int) -> None:
        write_json(run.status, with_changes(beat("training", iteration=iteration), time=time.time()))

    between_looks = iter([partial(go_on, 11), partial(go_on, 60), finish])
    monkeypatch.setattr(cli_watch.time, "sleep", lambda seconds: next(between_looks, lock.close)())
    with lock:
        lock.enter_context(run.lock())
        text = invoke("status", "table2/L6", "--profile", "tiny", "--watch").stdout
    assert [line.split(job.train.id)[1].split()[1] for line in text.splitlines() if "%" in line] == ["10%,", "60%,"]
    assert text.count("done (AP 5.0)") == 2  # as a change, and in the last listing


def test_status_loads_neither_torch_nor_pandas() -> None:
    code = (
        "import sys; import harness.cli.runs.status, harness.cli.runs.failure_report; "
        "import harness.status.observe, harness.launch.cancel, harness.status.logs, harness.status.find; "
        "sys.exit(len({'torch', 'pandas', 'scipy', 'submitit'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
