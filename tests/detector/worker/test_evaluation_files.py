"""What an evaluation leaves beside its record: the matches per image, of which the record's AP comes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from detector.data.coco.index import load_index
from detector.errors import WeightsError
from detector.evaluation.detections import read_detections
from detector.evaluation.errors import errors_of
from detector.evaluation.matches import read_matches
from detector.evaluation.reweighted import AP_METRICS, reweighted_ap
from detector.evaluation.training_part import UNNAMED
from detector.runs.folder import RunDir
from detector.worker.run import evaluate_and_record, train_to_final
from drloss.config import FocalLossConfig
from support.micro import ALONE, micro_assignment, micro_data, micro_job, write_experiments


def test_the_weights_of_another_run_give_no_record(tmp_path: Path) -> None:
    """Those of the focal loss in the folder of the DR loss: the same network, another training."""
    torch.set_num_threads(1)
    job = micro_job(write_experiments(tmp_path / "experiments", iterations=1))
    other = replace(job, train=replace(job.train, loss=FocalLossConfig(alpha=0.25, gamma=2.0)))
    data = micro_data(tmp_path / "data", job)
    runs = [RunDir(tmp_path / item.train.id) for item in (job, other)]
    for item, run in zip((job, other), runs, strict=True):
        run.root.mkdir()
        assignment = micro_assignment(item, run.root, data)
        train_to_final(assignment, run, world=ALONE, heartbeat=None, stop=lambda: False)
    runs[1].final.replace(runs[0].final)

    with pytest.raises(WeightsError, match=rf"weights of another training: {other.train.id}, not {job.train.id}"):
        evaluate_and_record(micro_assignment(job, runs[0].root, data), job, runs[0], world=ALONE, heartbeat=None)
    assert not runs[0].record(job.id).exists()


def test_evaluate_and_record_keeps_matches_and_ap_lost_by_kind_of_error(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    job = micro_job(write_experiments(tmp_path / "experiments", iterations=4))
    job = replace(job, test=replace(job.test, score_threshold=0.0))
    data, run = micro_data(tmp_path / "data", job), RunDir(tmp_path / "run")
    run.root.mkdir()
    assignment = micro_assignment(job, run.root, data)
    train_to_final(assignment, run, world=ALONE, heartbeat=None, stop=lambda: False)
    evaluate_and_record(assignment, job, run, world=ALONE, heartbeat=None)
    record = run.read_record(job.id)
    assert record is not None
    assert UNNAMED not in record.notes
    matches = read_matches(run.matches(job.id))
    index, found = load_index(data, "val2017"), read_detections(run.detections(job.id))
    assert len(matches.scores) == len(found) > 0
    (ap,) = reweighted_ap(matches, np.ones((1, index.num_images), np.int64))
    expected = np.array([record.metrics[name] for name in AP_METRICS], dtype=np.float64)
    np.testing.assert_array_equal(ap, expected)
    assert (record.lost_ap, record.lost_parts) == errors_of(index, found)
