"""Runs on a real Slurm of two nodes: arrays, processes over nodes, time limits, crashes, and two people at once."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from msgspec.structs import replace

from detector.runs.folder import RunDir
from harness.slurm.submissions import submission_file, transport_folder, write_submission
from support.final_weights import assert_same_bits, final_weights
from support.slurm.machine import tasks
from support.workplace import Workplace, make_workplace
from tests.slurm.jobs import (
    JOB_SECONDS,
    ROW,
    log_of,
    runs_of,
    said_by_jobs,
    show,
    the_submission,
    trained,
    wait_for_checkpoint,
    wait_until_queue_is_empty,
)

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("slurm")]

PROJECT = Path(__file__).resolve().parents[2]


def test_two_runs_are_one_array_with_a_process_on_each_node(undisturbed: tuple[Workplace, dict[str, str]]) -> None:
    place, said = undisturbed
    assert "2 runs, each on 2 nodes of 1 process" in said["first"]
    runs = trained(place)
    assert len(runs) == 2, said_by_jobs(place)
    for run in runs:
        assert json.loads(run.environment.read_text())["processes"] == "2"
        assert not list(run.root.glob(".meeting-*"))
    entry = the_submission(place)
    names = {path.name for path in transport_folder(runs_of(place), entry.token).glob("*.out")}
    assert names == {f"{entry.job_id}_{index}_{rank}_log.out" for index in (0, 1) for rank in (0, 1)}


def test_dry_run_prints_the_script_that_is_then_submitted(undisturbed: tuple[Workplace, dict[str, str]]) -> None:
    place, said = undisturbed
    entry = the_submission(place)
    script = transport_folder(runs_of(place), entry.token) / "job.sh"
    assert script.read_text() in said["dry"]
    assert "#SBATCH --array=0-1%2" in said["dry"]


def test_the_same_command_again_submits_nothing(undisturbed: tuple[Workplace, dict[str, str]]) -> None:
    place, said = undisturbed
    job_id = the_submission(place).job_id
    assert "Nothing was submitted." in said["second"]
    assert re.search(
        rf"already there: table3/dr.*, seed 1: job {job_id}_1, (pending|running|configuring)", said["second"]
    )
    assert "2 done, 0 to do" in said["last"]


def test_a_run_whose_time_is_up_saves_is_queued_again_and_ends_with_the_same_weights(
    undisturbed: tuple[Workplace, dict[str, str]], tmp_path: Path, cluster_file: Path
) -> None:
    place = make_workplace(tmp_path, iterations=150)
    place.harness(*ROW, "--cluster", str(cluster_file))
    run, job_id = wait_for_checkpoint(place), the_submission(place).job_id
    subprocess.run(["scancel", "--signal=USR2", str(job_id)], check=True)
    wait_until_queue_is_empty(place)
    assert [path.root for path in trained(place)] == [run.root], said_by_jobs(place)
    log = log_of(run)
    assert re.search(r"stopped at iteration \d+; the state is saved\n", log), log
    assert "the time was nearly up; queued again (1 of at most 100)" in log
    assert re.search(r"resumed after iteration \d+", log)
    assert show(job_id)["Restarts"] == "1"
    assert the_submission(place).job_id == job_id
    (alone,) = [item for item in trained(undisturbed[0]) if item.root.name == run.root.name]
    assert_same_bits(final_weights(run), final_weights(alone))
    iterations = [json.loads(line)["iteration"] for line in run.metrics.read_text().splitlines()]
    assert iterations == sorted(set(iterations))


def test_a_run_that_makes_room_for_an_urgent_job_saves_and_comes_back(tmp_path: Path, cluster_file: Path) -> None:
    place = make_workplace(tmp_path, iterations=150)
    place.harness(*ROW, "--cluster", str(cluster_file))
    run, job_id = wait_for_checkpoint(place), the_submission(place).job_id
    urgent = ["sbatch", "--partition=urgent", "--exclusive", "--nodes=2", "--output=/dev/null", "--wrap=sleep 1"]
    subprocess.run(urgent, check=True, capture_output=True)
    wait_until_queue_is_empty(place)
    log = log_of(run)
    assert "the state is saved" in log, said_by_jobs(place)
    assert "preempted; queued again (1 of at most 100)" in log, said_by_jobs(place)
    assert [path.root for path in trained(place)] == [run.root], said_by_jobs(place)
    assert show(job_id)["Restarts"] == "1"


def test_a_signal_during_the_imports_is_heeded_after_them(
    tmp_path: Path, cluster_file: Path, slurm: dict[str, str]
) -> None:
    place = make_workplace(tmp_path, iterations=20)
    place.harness(*ROW, "--cluster", str(cluster_file))
    job_id = the_submission(place).job_id
    deadline = time.monotonic() + JOB_SECONDS
    while not all(tasks(slurm["SLURM_CONF"], rank) for rank in (0, 1)):  # until Python is busy with its imports
        assert time.monotonic() < deadline, said_by_jobs(place)
        time.sleep(0.02)
    subprocess.run(["scancel", "--signal=USR2", str(job_id)], check=True)
    wait_until_queue_is_empty(place)
    (run,) = trained(place)
    log = log_of(run)
    assert re.search(r"stopped at iteration 1; the state is saved\n.*the time was nearly up; queued again", log), log
    assert show(job_id)["Restarts"] == "1"


def test_a_cancelled_run_saves_and_stays_away(tmp_path: Path, cluster_file: Path) -> None:
    place = make_workplace(tmp_path, iterations=5000)
    place.harness(*ROW, "--cluster", str(cluster_file))
    run, job_id = wait_for_checkpoint(place), the_submission(place).job_id
    assert re.search(r"running \d+%, ETA", place.harness("status", *ROW[1:]))
    assert "harness: start 1" in place.harness("logs", *ROW[1:], "--rank", "0")
    said = place.harness("cancel", *ROW[1:])
    assert f"cancelled job {job_id}, which saves and ends" in said
    wait_until_queue_is_empty(place)
    assert "cancelled (" in place.harness("status", *ROW[1:])
    status = run.read_status()
    assert status is not None
    assert re.fullmatch(r"stopped at iteration \d+; the state is saved", status.message), status
    job = show(job_id)
    assert (job["JobState"], job["Restarts"]) == ("CANCELLED", "0")


def test_a_crash_between_sbatch_and_noting_the_id_loses_nothing(tmp_path: Path, holding_file: Path) -> None:
    place = make_workplace(tmp_path, iterations=8)
    place.harness(*ROW, "--cluster", str(holding_file))
    entry = the_submission(place)
    # As after a crash: the id was never written down.
    write_submission(runs_of(place), replace(entry, state="submitting", job_id=None, time=0.0))
    said = place.harness(*ROW, "--cluster", str(holding_file))
    assert f"Found again: job {entry.job_id}" in said
    assert "Nothing was submitted." in said
    assert the_submission(place).job_id == entry.job_id
    subprocess.run(["scontrol", "release", str(entry.job_id)], check=True)
    wait_until_queue_is_empty(place)
    assert len(trained(place)) == 1, said_by_jobs(place)


def test_a_run_that_fails_is_not_started_again_by_itself(tmp_path: Path, cluster_file: Path) -> None:
    place = make_workplace(tmp_path, iterations=8)
    command = (*ROW, "--cluster", str(cluster_file), "--set", "optimizer.lr=1e6")
    place.harness(*command)
    wait_until_queue_is_empty(place)
    job = show(the_submission(place).job_id)
    assert (job["JobState"], job["Restarts"]) == ("FAILED", "0")
    (status,) = [RunDir(path.parent).read_status() for path in runs_of(place).glob("*/status.json")]
    assert status is not None
    assert status.phase == "failed"
    assert "The loss is not finite" in status.message
    assert "Submitted job" in place.harness(*command)  # only when told to
    wait_until_queue_is_empty(place)


def test_two_people_at_once_train_a_run_once(tmp_path: Path, holding_file: Path) -> None:
    place = make_workplace(tmp_path, iterations=8)
    people = [place.start(*ROW, "--seeds", "3", "--cluster", str(holding_file)) for _ in range(3)]
    said = ["".join(person.communicate(timeout=60)) for person in people]
    assert [person.returncode for person in people] == [0, 0, 0], said
    listed = subprocess.check_output(["squeue", "-h", "-r", "-o", "%k"], text=True).split()
    assert listed == [f"harness-{the_submission(place).token}"] * 3
    assert sorted("Nothing was submitted." in text for text in said) == [False, True, True]
    subprocess.run(["scancel", str(the_submission(place).job_id)], check=True)
    wait_until_queue_is_empty(place)


def test_queued_runs_keep_the_code_that_they_were_submitted_with(
    tmp_path: Path, holding_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "checkout"
    for package in ("detector", "drloss", "experiments", "harness"):
        shutil.copytree(PROJECT / package, checkout / package, ignore=shutil.ignore_patterns("__pycache__"))
    place = make_workplace(tmp_path, iterations=8)
    monkeypatch.setenv("PYTHONPATH", str(checkout))
    monkeypatch.chdir(checkout)
    place.harness(*ROW, "--cluster", str(holding_file))
    edited = checkout / "detector" / "worker" / "__main__.py"
    edited.write_text("raise RuntimeError('edited after the submission')\n" + edited.read_text())
    subprocess.run(["scontrol", "release", str(the_submission(place).job_id)], check=True)
    wait_until_queue_is_empty(place)
    assert len(trained(place)) == 1, said_by_jobs(place)


def test_slurm_accepts_a_script_with_gpus(tmp_path: Path) -> None:
    place = make_workplace(tmp_path, iterations=8)
    profile = place.root / "experiments" / "profiles" / "tiny.yaml"
    values = yaml.safe_load(profile.read_text())
    values["execution"]["gpus_per_run"] = "all"
    profile.write_text(yaml.safe_dump(values))
    example = (PROJECT / "experiments" / "clusters" / "example.yaml").read_text()
    given = tmp_path / "gpus.yaml"
    given.write_text(example.replace("partition: gpu", "partition: main"))
    process = place.start(*ROW, "--cluster", str(given), "--dry-run")
    script, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "#SBATCH --gpus-per-node=2\n" in script  # the micro batch has two groups
    assert "#SBATCH --nodes=1\n" in script
    checked = subprocess.run(["sbatch", "--test-only"], input=script, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert not list(runs_of(place).glob("submissions/*.json"))


def test_a_job_that_would_never_start_is_told_with_what_would_take_it(tmp_path: Path, cluster_file: Path) -> None:
    place = make_workplace(tmp_path, iterations=8)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(cluster_file.read_text().replace("partition: main", "partition: nowhere"))
    said = place.harness(*ROW, "--cluster", str(wrong), code=2)
    assert "There is no partition nowhere. Partitions that would take it: main, urgent, cheap." in said
    assert not list(runs_of(place).glob("submissions/*.json"))


def test_a_refused_job_is_told_and_leaves_nothing_behind(tmp_path: Path, cluster_file: Path) -> None:
    place = make_workplace(tmp_path, iterations=8)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(f"{cluster_file.read_text()}reservation: nowhere\n")
    said = place.harness(*ROW, "--cluster", str(wrong), code=2)
    assert "Requested reservation is invalid" in said
    assert not list(runs_of(place).glob("*/claim.json"))
    assert the_submission(place).state == "refused"
    assert "refused" in place.harness("status", *ROW[1:])
    assert submission_file(runs_of(place), the_submission(place).token).exists()
