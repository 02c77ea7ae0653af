"""A finished record of any evaluation, made without training."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from detector.runs.code import Code
from detector.runs.job import EvalJob
from detector.runs.record import COCO_METRICS, Record, SplitFingerprint, read_record
from detector.storage.files import write_json


def record_of(job: EvalJob) -> Record:
    """A record of the usual size."""
    split = SplitFingerprint(images=300, boxes=1500, sha256="0" * 64)
    return Record(
        format=1,
        eval_id=job.id,
        train_id=job.train.id,
        profile="tiny",
        job=job,
        metrics=dict.fromkeys(COCO_METRICS, 50.0) | {"AP": 23.4, "positive_score": 0.7, "negative_score": 0.4},
        train_split=split,
        test_split=split,
        environment={f"library {i}": "1.0" for i in range(8)},
        code=Code(version="0", commit="0" * 40, modified=False),
        train_seconds=1.0,
        eval_seconds=1.0,
        finished="2024-05-01T10:00:00+00:00",
        notes=(),
    )


def first_format(record: Record) -> Record:
    """The record as the first format had it: without a hash, and without what came with the second."""
    return replace(
        record,
        format=1,
        timing=None,
        starts=(),
        evaluation=None,
        inputs=None,
        health=None,
        scores=None,
        curves=None,
        lost_ap=None,
        lost_parts=None,
        sha256=None,
    )


def results_of_first_format(results: Path, out: Path) -> Path:
    """A results folder ``out`` with the records of another one, in the first format."""
    for path in results.glob("records/*/*.json"):
        write_json(out / path.relative_to(results), first_format(read_record(path)))
    return out
