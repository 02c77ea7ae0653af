"""What an evaluation leaves beside its record: the matches per image, of which the record's AP comes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from msgspec.structs import replace

from detector.data.coco.index import load_index
from detector.evaluation.detections import read_detections
from detector.evaluation.errors import lost_ap
from detector.evaluation.matches import read_matches
from detector.evaluation.reweighted import AP_METRICS, reweighted_ap
from detector.runs.folder import RunDir
from detector.worker.run import evaluate_and_record, train_to_final
from support.micro import ALONE, micro_assignment, micro_data, micro_job, write_experiments


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
    matches = read_matches(run.matches(job.id))
    index, found = load_index(data, "val2017"), read_detections(run.detections(job.id))
    assert len(matches.scores) == len(found) > 0
    (ap,) = reweighted_ap(matches, np.ones((1, index.num_images), np.int64))
    expected = np.array([record.metrics[name] for name in AP_METRICS], dtype=np.float64)
    np.testing.assert_array_equal(ap, expected)
    assert record.lost_ap == lost_ap(index, found)
