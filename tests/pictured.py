"""Finished runs whose detections are made up, on a generated set: what pictures are drawn from, without a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from detector.data.coco.files import annotations_sha256
from detector.data.coco.index import CocoIndex, load_index
from detector.data.shapes.generate import shapes_folder_name
from detector.evaluation.detections import Detections, write_detections
from detector.runs.code import Code
from detector.runs.folder import RunDir
from detector.runs.job import EvalJob, Shapes
from detector.runs.record import RECORD_FORMAT, Record, SplitFingerprint, content_hash
from detector.storage.files import write_json
from support.micro import micro_data, micro_job, write_experiments


def pictured(folder: Path, monkeypatch: pytest.MonkeyPatch, **wrong: float) -> Path:
    """A workplace with the generated set and a run of seed 0 for each row of Table 2 that is named.

    wrong: the share of the boxes that a row does not find, by the row's name. Returns the runs folder.
    """
    experiments, runs = write_experiments(folder / "experiments"), folder / "runs"
    for name, value in (("EXPERIMENTS", experiments), ("RUNS", runs), ("RESULTS", folder / "results")):
        monkeypatch.setenv(f"HARNESS_{name}", str(value))
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    source = micro_job(experiments).train.data
    assert isinstance(source, Shapes)
    root = micro_data(runs / "data" / shapes_folder_name(source), micro_job(experiments))
    for ref, share in wrong.items():
        finished(runs, root, micro_job(experiments, f"table2/{ref}"), share)
    return runs


def finished(runs: Path, root: Path, job: EvalJob, share: float) -> None:
    """The folder of a finished run of this job, which does not find ``share`` of the boxes."""
    run, sha256 = RunDir(runs / job.train.id), annotations_sha256(root, "val2017")
    split = SplitFingerprint(images=6, boxes=9, sha256=sha256)
    record = Record(
        format=RECORD_FORMAT,
        eval_id=job.id,
        train_id=job.train.id,
        profile="tiny",
        job=job,
        metrics={"AP": 50.0},
        train_split=split,
        test_split=split,
        environment={},
        code=Code(version="0", commit=None, modified=None),
        train_seconds=1.0,
        eval_seconds=1.0,
        finished="2026-01-01T00:00:00+00:00",
        notes=(),
    )
    run.evaluation(job.id).mkdir(parents=True)
    write_json(run.job, job.train)
    write_json(run.record(job.id), replace(record, sha256=content_hash(record)))
    write_detections(run.detections(job.id), made_up(load_index(root, "val2017"), share))


def made_up(index: CocoIndex, share: float) -> Detections:
    """Every annotated box found exactly, but the last ``share`` of them, whose detections lie in the corner."""
    count = len(index.boxes)
    boxes = np.concatenate([index.boxes[:, :2], index.sides], axis=1)
    first = round(count * (1 - share))
    boxes[first:] = [0, 0, 3, 3]
    ids, scores = index.image_ids[index.positions()], np.linspace(0.9, 0.6, count)
    return Detections(ids, index.category_ids[index.labels], boxes, scores)
