"""Limits of a site: arrays are cut to them; a later command, or one that stays, submits what was held back."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.slurm.submissions import read_submissions
from support.slurm.cluster import missing_programs
from support.slurm.plan import Accounts, ClusterPlan
from support.workplace import make_workplace
from tests.slurm.conftest import StartSlurm
from tests.slurm.jobs import ROW, cluster_text, runs_of, said_by_jobs, squeue, trained, wait_until_queue_is_empty

pytestmark = pytest.mark.slurm

STAY_SECONDS = 400  # a look each minute
SMALL_ARRAYS = {"MaxArraySize": "4"}
needs_accounts = pytest.mark.skipif(
    bool(missing_programs(accounts=True)),
    reason="WITHOUT ACCOUNTS: slurmdbd and mariadb-server are not installed ('make slurm-ready' installs them)",
)


def test_more_runs_than_an_array_may_have_are_several_arrays(tmp_path: Path, start_slurm: StartSlurm) -> None:
    start_slurm(ClusterPlan(name="small", settings=SMALL_ARRAYS))
    place = make_workplace(tmp_path, iterations=8)
    given = tmp_path / "holding.yaml"
    given.write_text(cluster_text("holding", extra="{hold: true}"))
    place.harness(*ROW, "--seeds", "6", "--cluster", str(given))
    arrays = read_submissions(runs_of(place))
    assert sorted(len(item.runs) for item in arrays) == [2, 4]
    assert len({run for item in arrays for run in item.runs}) == 6
    assert len(squeue("-r")) == 6
    assert "Nothing was submitted." in place.harness(*ROW, "--seeds", "6", "--cluster", str(given))


@needs_accounts
def test_what_a_qos_does_not_take_is_held_back_until_there_is_room(tmp_path: Path, start_slurm: StartSlurm) -> None:
    start_slurm(ClusterPlan(name="lab", settings=SMALL_ARRAYS, accounts=Accounts({"three": "MaxSubmitJobsPerUser=3"})))
    place = make_workplace(tmp_path, iterations=2)
    given = tmp_path / "three.yaml"
    given.write_text(cluster_text("three", qos="three", nodes="1", extra="{hold: true}"))
    command = (*ROW, "--seeds", "5", "--cluster", str(given))
    said = place.harness(*command)
    assert len(squeue("-r")) == 3, said
    assert "held back" in said
    assert "three" in said
    place.harness(*command)
    assert len(squeue("-r")) == 3
    (first,) = squeue("-o", "%A")
    subprocess.run(["scontrol", "release", first], check=True)
    wait_until_queue_is_empty(place)
    assert len(trained(place)) == 3, said_by_jobs(place)
    said = place.harness(*command)  # now there is room
    assert len(squeue("-r")) == 2, said
    assert "3 done" in said


@needs_accounts
def test_a_command_that_stays_submits_the_rest_when_there_is_room(tmp_path: Path, start_slurm: StartSlurm) -> None:
    start_slurm(ClusterPlan(name="lab", accounts=Accounts({"two": "MaxSubmitJobsPerUser=2"})))
    place = make_workplace(tmp_path, iterations=2)
    given = tmp_path / "two.yaml"
    given.write_text(cluster_text("two", qos="two", nodes="1"))
    process = place.start(*ROW, "--seeds", "3", "--cluster", str(given), "--stay")
    said = "".join(process.communicate(timeout=STAY_SECONDS))
    assert process.returncode == 0, said
    wait_until_queue_is_empty(place)
    assert len(trained(place)) == 3, said + said_by_jobs(place)
    assert sorted(len(item.runs) for item in read_submissions(runs_of(place))) == [1, 2]


@needs_accounts
def test_the_accounts_tell_how_a_job_ended_that_the_queue_has_forgotten(
    tmp_path: Path, start_slurm: StartSlurm
) -> None:
    start_slurm(ClusterPlan(name="lab", settings={"MinJobAge": "2"}, accounts=Accounts()))
    place = make_workplace(tmp_path, iterations=8)
    given = tmp_path / "holding.yaml"
    given.write_text(cluster_text("holding", extra="{hold: true}"))
    place.harness(*ROW, "--cluster", str(given))
    assert "held" in place.harness("status", *ROW[1:])
    subprocess.run(["scancel", *squeue("-o", "%A")], check=True)
    wait_until_queue_is_empty(place)
    assert "cancelled" in place.harness("status", *ROW[1:])
