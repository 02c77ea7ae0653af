"""What a submission is told as, and what a dry run shows, with stand-ins for Slurm's programs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from msgspec.structs import replace as changed

from detector.runs.job import EvalJob
from harness.launch.submit import DryRun, dry_run, submission_lines
from harness.slurm.arrays import Work
from harness.slurm.submissions import write_submission
from harness.slurm.submit import Outcome, submission_of
from tests.slurm_work import cluster, run, work
from tests.squeue import Programs, squeue_line


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    return Programs.install(tmp_path / "slurm", monkeypatch)


@pytest.fixture
def wanted(job: EvalJob, tmp_path: Path) -> Work:
    """Three runs."""
    runs = tmp_path / "runs"
    return work(*(run(job, runs, seed=seed) for seed in range(3)), runs=runs)


def names(wanted: Work) -> dict[str, str]:
    return {item.train.id: f"table2/L6, seed {item.train.seed}" for item in wanted.assignments}


def tried(wanted: Work, *clusters: str) -> tuple[DryRun, list[str]]:
    said: list[str] = []
    return dry_run(wanted, [cluster(name=name) for name in clusters or ("c",)], said.append), said


def test_a_dry_run_shows_the_arrays_within_the_limits_of_the_site_and_leaves_nothing(
    wanted: Work, programs: Programs
) -> None:
    programs.config(ClusterName="here", MaxArraySize="2", MaxJobCount="2")
    shown, said = tried(wanted)
    assert [len(array.members) for array in shown.arrays] == [2]
    assert "2 submitted, 1 held back" in shown.why_held_back[0]
    assert (shown.skipped, said) == ({}, [])
    assert programs.calls_of("sbatch") == []
    assert not wanted.runs.exists()


def test_a_dry_run_goes_on_where_slurm_does_not_answer(wanted: Work, programs: Programs) -> None:
    programs.fail("scontrol", "down")
    shown, said = tried(wanted)
    assert [len(array.members) for array in shown.arrays] == [3]
    assert said == ["The queue was not read: scontrol failed: down."]


def test_a_dry_run_leaves_out_what_is_queued_and_changes_no_submission(wanted: Work, programs: Programs) -> None:
    (array,) = tried(wanted)[0].arrays
    write_submission(wanted.runs, changed(submission_of(array, wanted, "0"), time=0.0))
    before = {path: path.read_bytes() for path in wanted.runs.glob("submissions/*.json")}
    programs.queue(squeue_line("17_1", "RUNNING", "None", f"harness-{array.token}"))
    shown, _ = tried(wanted)
    second = wanted.assignments[1].train.id
    assert shown.skipped == {second: "job 17_1, running"}
    assert [item.train.seed for item in shown.arrays[0].members] == [0, 2]
    assert {path: path.read_bytes() for path in wanted.runs.glob("submissions/*.json")} == before


def test_a_submission_is_told_by_its_jobs_and_their_runs(wanted: Work, programs: Programs) -> None:
    arrays = tried(wanted, "a", "b")[0].arrays
    entries = [
        changed(submission_of(array, wanted, "0"), state="submitted", job_id=job)
        for array, job in zip(arrays, ("17", "18"), strict=True)
    ]
    ids = list(names(wanted))
    lost = changed(entries[0], job_id="9")
    outcome = Outcome(tuple(zip(entries, arrays, strict=True)), {ids[2]: "job 5, running"}, (lost,), (ids[2],))
    assert submission_lines(outcome, names(wanted)) == [
        "Found again: job 9, submitted by a command that ended before it knew the id.",
        "already there: table2/L6, seed 2: job 5, running",
        "  will also be evaluated by its job: table2/L6, seed 2",
        "Submitted job 17 (table2-2runs) to a: 2 runs, each on 1 node of 1 process.",
        "  17_0: table2/L6, seed 0",
        "  17_1: table2/L6, seed 2",
        "Submitted job 18 (table2-L6-s1) to b: 1 run, each on 1 node of 1 process.",
        "  18: table2/L6, seed 1",
    ]
    one = replace(outcome, submitted=outcome.submitted[1:], skipped={}, recovered=(), wanted=())
    full = replace(one, held_back=(ids[0],), why_held_back=("There is no room",))
    assert submission_lines(full, names(wanted)) == [
        "Submitted job 18 (table2-L6-s1): 1 run, each on 1 node of 1 process.",
        "  18: table2/L6, seed 1",
        "Held back: 1 run. There is no room.",
    ]
