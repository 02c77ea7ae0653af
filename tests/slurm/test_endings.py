"""Ways in which a job ends before its run: each time it is queued again, from outside of any container."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from harness.slurm.submissions import transport_folder
from support.slurm import machine
from support.slurm.cluster import slurmd_command
from support.slurm.plan import CHEAP, ClusterPlan
from support.workplace import make_workplace
from tests.slurm.conftest import StartSlurm
from tests.slurm.jobs import (
    ROW,
    Undisturbed,
    assert_as_undisturbed,
    cluster_text,
    log_of,
    runs_of,
    said_by_jobs,
    show,
    squeue,
    the_submission,
    trained,
    wait_for_checkpoint,
    wait_until,
    wait_until_queue_is_empty,
)

pytestmark = pytest.mark.slurm

# As inside of a container that has no Slurm: env and Python are there, and nothing else.
CONTAINER = """\
#!/bin/sh
exec /usr/bin/env -u SLURM_CONF PATH={programs} "$@"
"""


@pytest.mark.usefixtures("slurm")
def test_a_preempted_run_without_a_moment_of_grace_goes_on_from_its_newest_checkpoint(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    place = make_workplace(tmp_path, iterations=150)
    given = tmp_path / "cheap.yaml"
    given.write_text(cluster_text("cheap", partition=CHEAP))
    place.harness(*ROW, "--cluster", str(given))
    run, entry = wait_for_checkpoint(place), the_submission(place)
    urgent = ["sbatch", "--partition=urgent", "--exclusive", "--nodes=2", "--output=/dev/null", "--wrap=sleep 1"]
    subprocess.run(urgent, check=True, capture_output=True)
    wait_until(lambda: show(entry.job_id)["Restarts"] == "1", place)
    assert re.search("preempted|requeued", place.harness("status", *ROW[1:]))
    wait_until_queue_is_empty(place)
    log = log_of(run)
    assert re.search(r"preempted.*; queued again \(1 of at most 100\)", log), log
    (ends,) = transport_folder(runs_of(place), entry.token).glob("*.ends")
    assert re.fullmatch(r"preempted \d+\.pt\n", ends.read_text()), ends.read_text()
    assert_as_undisturbed(run, place, undisturbed)


@pytest.mark.usefixtures("slurm")
def test_a_step_that_somebody_cancels_is_started_again(
    undisturbed: Undisturbed, tmp_path: Path, cluster_file: Path
) -> None:
    place = make_workplace(tmp_path, iterations=150)
    place.harness(*ROW, "--cluster", str(cluster_file))
    run, entry = wait_for_checkpoint(place), the_submission(place)
    subprocess.run(["scancel", f"{entry.job_id}.0"], check=True)
    wait_until_queue_is_empty(place)
    assert show(entry.job_id)["Restarts"] == "1", said_by_jobs(place)
    assert "retry 1 of at most 3 from here; queued again (1 of at most 100)" in log_of(run)
    assert_as_undisturbed(run, place, undisturbed)


@pytest.mark.usefixtures("slurm")
def test_a_container_without_slurm_saves_and_is_queued_again_from_outside(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    programs, container = tmp_path / "programs", tmp_path / "container"
    programs.mkdir()
    (programs / "env").symlink_to("/usr/bin/env")
    container.write_text(CONTAINER.format(programs=programs))
    container.chmod(0o755)
    place = make_workplace(tmp_path, iterations=150)
    given = tmp_path / "contained.yaml"
    given.write_text(cluster_text("contained", container=str(container)))
    place.harness(*ROW, "--cluster", str(given))
    run, entry = wait_for_checkpoint(place), the_submission(place)
    subprocess.run(["scancel", "--signal=USR2", str(entry.job_id)], check=True)
    wait_until_queue_is_empty(place)
    log = log_of(run)
    assert re.search(r"stopped at iteration \d+; the state is saved", log), log
    assert "queued again (1 of at most 100)" in log
    assert show(entry.job_id)["Restarts"] == "1"
    assert_as_undisturbed(run, place, undisturbed)


@pytest.mark.usefixtures("slurm")
def test_a_container_program_that_is_not_there_is_told_in_its_own_words(tmp_path: Path) -> None:
    place = make_workplace(tmp_path, iterations=8)
    given = tmp_path / "nowhere.yaml"
    given.write_text(cluster_text("nowhere", container="apptainer exec image.sif", max_requeues="2"))
    place.harness(*ROW, "--cluster", str(given))
    wait_until_queue_is_empty(place)
    said = place.harness("status", *ROW[1:])
    assert "apptainer" in said, said + said_by_jobs(place)
    assert "died before start" in said
    assert show(the_submission(place).job_id)["Restarts"] == "0"


@pytest.mark.usefixtures("slurm")
def test_starts_that_win_too_few_iterations_are_ended_with_the_reason(tmp_path: Path, cluster_file: Path) -> None:
    place = make_workplace(tmp_path, iterations=100_000)
    place.harness(*ROW, "--cluster", str(cluster_file))
    run, entry = wait_for_checkpoint(place), the_submission(place)
    for restart in range(1, 6):
        subprocess.run(["scancel", "--signal=USR2", str(entry.job_id)], check=True)
        wait_until(lambda: not squeue() or show(entry.job_id)["Restarts"] == str(restart), place)  # noqa: B023
        trains = "resumed after iteration"
        wait_until(lambda: not squeue() or log_of(run).count(trains) == restart, place)  # noqa: B023
        if not squeue():
            break
    wait_until_queue_is_empty(place)
    assert 2 <= int(show(entry.job_id)["Restarts"]) <= 4, said_by_jobs(place)
    said = place.harness("status", *ROW[1:])
    assert re.search(r"failed|given up", said), said + said_by_jobs(place)
    assert "time_minutes" in log_of(run)


def test_a_lost_node_is_left_for_another_start(
    undisturbed: Undisturbed, tmp_path: Path, cluster_file: Path, start_slurm: StartSlurm
) -> None:
    variables = start_slurm(ClusterPlan(name="losing", settings={"SlurmdTimeout": "10"}))
    conf = variables["SLURM_CONF"]
    place = make_workplace(tmp_path, iterations=150)
    place.harness(*ROW, "--cluster", str(cluster_file))
    run, entry = wait_for_checkpoint(place), the_submission(place)
    daemon = slurmd_command(Path(conf).parent, "n2")
    machine.kill([*machine.daemons(daemon), *machine.node_processes(conf, "n2")])
    wait_until(lambda: show(entry.job_id)["Restarts"] != "0", place)
    with subprocess.Popen(daemon, env={**os.environ, **variables}, stdout=subprocess.DEVNULL) as again:
        try:
            wait_until_queue_is_empty(place)
        finally:
            again.terminate()
    assert [item.root for item in trained(place)] == [run.root], said_by_jobs(place)
    assert_as_undisturbed(run, place, undisturbed)
