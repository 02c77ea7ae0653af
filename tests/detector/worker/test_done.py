"""The end of a run: what was asked for meanwhile is evaluated too, and little is left in its folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.runs.wanted import want
from detector.worker.silence import END_SECONDS
from support.micro import micro_assignment
from support.processes import outputs, run_tasks

MOST_FILES = 12  # with one that the launcher leaves


def files(run: RunDir) -> list[str]:
    """Without what stands for the output of a Slurm job."""
    paths = [path for path in run.root.rglob("*") if path.is_file() and not path.name.startswith("output-")]
    return sorted(str(path.relative_to(run.root)) for path in paths)


@pytest.mark.slow
def test_a_worker_evaluates_what_was_asked_for_meanwhile_by_one_process_or_two(
    job: EvalJob, data: Path, tmp_path: Path
) -> None:
    run = RunDir(tmp_path / job.train.id)
    flipped, larger = (
        replace(job, test=replace(job.test, **changes)) for changes in ({"flip": True}, {"max_size": 96})
    )
    want(run, [flipped, job])
    broken = run.wanted("0123456789abcdef")
    broken.parent.mkdir()
    broken.write_text("{}")
    (run.root / "claim.json").write_text('{"token": "abc-0"}')
    assert run_tasks(micro_assignment(job, run.root, data, max_requeues=3), 1) == [0], outputs(run)
    assert [run.read_record(item.id) is not None for item in (job, flipped, larger)] == [True, True, False]
    log = run.log.read_text()
    assert f"{broken} cannot be read as EvalJob" in log
    assert "detector.training.metrics: iteration 8/8: loss " in log
    starts = tmp_path / f"{job.train.id}-submission" / "task-1.starts"
    assert starts.read_text() == "0 0\n"

    # Now the run has all that it was to have, and the records that it has stay what they are.
    broken.unlink()
    before = run.record(job.id).read_bytes()
    want(run, [job, larger])
    assert run_tasks(micro_assignment(job, run.root, data), 2) == [0, 0], outputs(run)
    assert run.read_record(larger.id) is not None
    assert run.record(job.id).read_bytes() == before
    assert json.loads(run.environment.read_text())["processes"] == "2"
    assert starts.read_text() == "0 0\n"  # nothing was left to train

    left = files(run)
    assert not [name for name in left if name.endswith(("/job.json", "inputs.json", "claim.json"))]
    of_one = [name for name in left if not name.startswith("evals") or job.id in name]
    assert len(of_one) < MOST_FILES, of_one
    status = run.read_status()
    assert status is not None
    assert (status.phase, status.job, status.silence) == ("done", "40_1", END_SECONDS)


def test_what_only_an_unfinished_run_needs_is_removed(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    kept = (run.job, run.status, run.root / "mine.json")
    for path in (*kept, run.inputs, run.failure(1), *(run.root / name for name in ("claim.json", ".meeting-7-0.json"))):
        path.touch()
    run.tidy()
    assert sorted(run.root.iterdir()) == sorted(kept)
