"""Runs on a real Slurm that lose a process, are queued again from outside, or find their newest checkpoint broken."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.slurm import machine
from support.slurm.cluster import slurmd_command
from support.slurm.plan import CREDENTIAL_SECONDS
from support.workplace import make_workplace
from tests.slurm.jobs import (
    ROW,
    Undisturbed,
    assert_as_undisturbed,
    cluster_text,
    log_of,
    process_of,
    said_by_jobs,
    show,
    the_submission,
    trained,
    wait_for_checkpoint,
    wait_until,
    wait_until_queue_is_empty,
)

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("slurm")]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_others_and_the_run_is_tried_again(
    rank: int, undisturbed: Undisturbed, tmp_path: Path, cluster_file: Path
) -> None:
    place = make_workplace(tmp_path, iterations=150)
    place.harness(*ROW, "--cluster", str(cluster_file))
    run, job_id = wait_for_checkpoint(place), the_submission(place).job_id
    os.kill(process_of(job_id, rank), signal.SIGKILL)
    wait_until(lambda: show(job_id)["Restarts"] == "1", place)
    assert re.search(r"requeued 1x|starting|running", place.harness("status", *ROW[1:]))
    wait_until_queue_is_empty(place)
    words = r"a process was killed \(signal 9\); retry 1 of at most 3 from here; queued again \(1 of at most 100\)"
    assert re.search(words, log_of(run)), log_of(run)
    assert_as_undisturbed(run, place, undisturbed)


def test_a_run_that_is_killed_again_and_again_is_given_up(tmp_path: Path, cluster_file: Path) -> None:
    place = make_workplace(tmp_path, iterations=8)
    given = tmp_path / "deadly.yaml"
    text = cluster_file.read_text().replace("name: two", "name: deadly")
    # A second of processor time is enough for the script's own steps, and not for the imports of a training.
    given.write_text(text + 'max_retries: 1\nsetup: ["ulimit -t 1"]\n')
    place.harness(*ROW, "--cluster", str(given))
    job_id = the_submission(place).job_id
    wait_until_queue_is_empty(place)
    assert show(job_id)["Restarts"] == "1"
    said = place.harness("status", *ROW[1:])
    assert "given up: no progress in 1 retry" in said
    assert "--retry-failed" in said
    assert trained(place) == []


def test_scontrol_requeue_lets_the_run_save_and_start_again(
    undisturbed: Undisturbed, tmp_path: Path, cluster_file: Path
) -> None:
    place = make_workplace(tmp_path, iterations=150)
    place.harness(*ROW, "--cluster", str(cluster_file))
    run, job_id = wait_for_checkpoint(place), the_submission(place).job_id
    subprocess.run(["scontrol", "requeue", str(job_id)], check=True)
    wait_until_queue_is_empty(place)
    assert show(job_id)["Restarts"] == "1"
    assert re.search(r"stopped at iteration \d+; the state is saved", log_of(run))
    assert_as_undisturbed(run, place, undisturbed)


def test_a_broken_newest_checkpoint_is_passed_over_for_the_one_before(
    undisturbed: Undisturbed, tmp_path: Path, cluster_file: Path
) -> None:
    place = make_workplace(tmp_path, iterations=150)
    place.harness(*ROW, "--cluster", str(cluster_file))
    run, job_id = wait_for_checkpoint(place), the_submission(place).job_id
    wait_until(lambda: len(list(run.checkpoints.glob("0*.pt"))) == 2, place)
    os.kill(process_of(job_id, 0), signal.SIGKILL)
    wait_until(lambda: show(job_id)["JobState"] == "PENDING", place)
    before, newest = sorted(run.checkpoints.glob("0*.pt"))
    newest.write_bytes(newest.read_bytes()[:1000])
    wait_until_queue_is_empty(place)
    log = log_of(run)
    assert f"{newest} is not a readable checkpoint" in log
    assert f"resumed after iteration {int(before.stem)}\n" in log
    assert_as_undisturbed(run, place, undisturbed)


def test_a_node_that_is_too_slow_to_start_the_processes_is_no_failure_of_the_run(
    undisturbed: Undisturbed, slurm: dict[str, str], tmp_path: Path, cluster_file: Path
) -> None:
    """It answers when what allows the step has expired: srun then starts nothing."""
    place = make_workplace(tmp_path, iterations=150)
    given, ready, go = tmp_path / "slow.yaml", tmp_path / "ready", tmp_path / "go"
    waits = f"touch {ready}; while [[ ! -e {go} ]]; do sleep 0.1; done"
    given.write_text(cluster_text("slow") + f'setup: ["{waits}"]\n')
    place.harness(*ROW, "--cluster", str(given))
    wait_until(ready.exists, place)
    daemons = machine.daemons(slurmd_command(Path(slurm["SLURM_CONF"]).parent, "n2"))
    send(daemons, signal.SIGSTOP)
    go.touch()
    time.sleep(CREDENTIAL_SECONDS + 2)
    send(daemons, signal.SIGCONT)
    wait_until_queue_is_empty(place)
    (run,) = trained(place)
    words = "Slurm could not start the processes: Job credential expired; retry 1 of at most 3 from here"
    assert words in log_of(run), said_by_jobs(place)
    assert_as_undisturbed(run, place, undisturbed)


def send(pids: list[int], number: signal.Signals) -> None:
    assert pids
    for pid in pids:
        os.kill(pid, number)
