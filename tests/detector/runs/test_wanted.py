"""Evaluations that are asked for by files in the run's folder."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from msgspec.structs import replace

from detector.errors import RecordError
from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.runs.wanted import forget_evaluated, want, wanted


@pytest.fixture
def run(job: EvalJob, tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / job.train.id)


def flipped(job: EvalJob) -> EvalJob:
    return replace(job, test=replace(job.test, flip=True))


def test_what_is_wanted_is_there_until_it_has_its_record(job: EvalJob, run: RunDir) -> None:
    assert wanted(run) == []
    want(run, [job, flipped(job)])
    want(run, [job])
    assert sorted(item.id for item in wanted(run)) == sorted([job.id, flipped(job).id])
    run.record(job.id).touch()
    assert wanted(run) == [flipped(job)]
    want(run, [job])  # harmless
    assert wanted(run) == [flipped(job)]
    forget_evaluated(run)
    assert [path.parent.name for path in run.root.glob("evals/*/job.json")] == [flipped(job).id]


def test_the_evaluation_of_another_training_is_refused(job: EvalJob, run: RunDir) -> None:
    other = replace(job, train=replace(job.train, seed=7))
    with pytest.raises(RecordError, match=f"is of the training {other.train.id}, not of"):
        want(run, [other])
    assert not run.root.exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"train": 1e999}', None])
def test_a_broken_file_is_named_and_left_out(
    job: EvalJob, run: RunDir, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    want(run, [job, flipped(job)])
    broken = run.wanted(job.id)
    # None: a whole job under another one's name.
    broken.write_bytes(run.wanted(flipped(job).id).read_bytes() if content is None else content)
    with caplog.at_level(logging.WARNING):
        assert wanted(run) == [flipped(job)]
    assert str(broken) in caplog.text
