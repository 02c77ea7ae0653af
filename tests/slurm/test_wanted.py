"""Evaluations are wanted by themselves: by a training that is under way, or by a smaller job for them alone."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from harness.slurm.submissions import read_submissions, transport_folder
from support.workplace import make_workplace
from tests.slurm.jobs import (
    cluster_text,
    runs_of,
    said_by_jobs,
    the_submission,
    trained,
    wait_for_checkpoint,
    wait_until_queue_is_empty,
)

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("slurm")]


def test_an_evaluation_that_is_wanted_later_is_done_by_the_training_and_another_by_a_job_of_its_own(
    tmp_path: Path,
) -> None:
    place = make_workplace(tmp_path, iterations=300)
    given = tmp_path / "two.yaml"
    given.write_text(cluster_text("two", evaluation="{nodes: 1, time_minutes: 7}"))
    cluster = ("--profile", "tiny", "--cluster", str(given))
    place.harness("run", "table4/dr-r101", *cluster)
    run = wait_for_checkpoint(place)
    said = place.harness("run", "table4/dr-r101-ms", *cluster)
    assert re.search("wanted|evaluat", said), said
    entry = the_submission(place)  # still the only one
    wait_until_queue_is_empty(place)
    assert len(trained(place)) == 2, said_by_jobs(place)

    place.harness("run", "ablations/dr-r101-base-test", *cluster)
    (alone,) = [item for item in read_submissions(runs_of(place)) if item.token != entry.token]
    script = (transport_folder(runs_of(place), alone.token) / "job.sh").read_text()
    options = [shlex.split(line)[1] for line in script.splitlines() if line.startswith("#SBATCH")]
    assert {"--nodes=1", "--time=7"} <= set(options)
    wait_until_queue_is_empty(place)
    assert len(trained(place)) == 3, said_by_jobs(place)
    assert {item.root for item in trained(place)} == {run.root}
