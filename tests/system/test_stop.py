"""Runs that are killed, interrupted or started twice, through the command: nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from detector.runs.folder import RunDir
from detector.runs.log_lines import STARTED, of_worker
from detector.runs.status import Status
from support.final_weights import assert_same_bits, final_weights
from support.micro import micro_job
from support.workplace import WAIT_SECONDS, Workplace, make_workplace


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    place = make_workplace(tmp_path_factory.mktemp("undisturbed"), iterations=60)
    place.harness("run", "table2/L6", "--profile", "tiny")
    return place


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return make_workplace(tmp_path, iterations=60)


def wait_for_iteration(run: RunDir, iteration: int) -> Status:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        status = run.read_status()
        if (run.checkpoints / f"{iteration:07d}.pt").exists() and status is not None:
            return status
        time.sleep(0.01)
    raise AssertionError(f"no checkpoint {iteration} within {WAIT_SECONDS} s")


def assert_same_result(place: Workplace, undisturbed: Workplace) -> None:
    assert_same_bits(*(final_weights(item.run_dir()) for item in (place, undisturbed)))
    job = micro_job(place.root / "experiments")
    records = [item.run_dir().read_record(job.id) for item in (place, undisturbed)]
    assert records[0] is not None
    assert records[1] is not None
    assert records[0].metrics == records[1].metrics


def test_run_killed_in_mid_training_resumes_to_the_same_weights(place: Workplace, undisturbed: Workplace) -> None:
    process = place.start("run", "table2/L6", "--profile", "tiny")
    os.kill(wait_for_iteration(place.run_dir(), 20).pid, signal.SIGKILL)
    _, err = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 1
    assert "the process ended without a word while training" in err
    assert not place.run_dir().final.exists()
    place.harness("run", "table2/L6", "--profile", "tiny")
    assert_same_result(place, undisturbed)


@pytest.mark.slow
def test_run_interrupted_by_ctrl_c_saves_and_goes_on(place: Workplace, undisturbed: Workplace) -> None:
    process = place.start("run", "table2/L6", "--profile", "tiny")
    wait_for_iteration(place.run_dir(), 10)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 130, err
    assert "goes on from there" in err
    assert not place.run_dir().is_locked()
    saved = sorted(place.run_dir().checkpoints.iterdir())
    assert saved
    place.harness("run", "table2/L6", "--profile", "tiny")
    assert "resumed after iteration" in place.run_dir().log.read_text()
    assert_same_result(place, undisturbed)


@pytest.mark.slow
def test_a_second_command_follows_the_first_instead_of_training_twice(place: Workplace) -> None:
    first = place.start("run", "table2/L6", "--profile", "tiny")
    wait_for_iteration(place.run_dir(), 2)
    second = place.start("run", "table2/L6", "--profile", "tiny")
    outputs = [process.communicate(timeout=WAIT_SECONDS) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    iterations = [json.loads(line)["iteration"] for line in place.run_dir().metrics.read_text().splitlines()]
    assert iterations == sorted(set(iterations))
    assert place.run_dir().log.read_text().count(of_worker("INFO", STARTED)) == 1
