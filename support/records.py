"""A finished record of any evaluation, made without training."""

from __future__ import annotations

from detector.runs.code import Code
from detector.runs.job import EvalJob
from detector.runs.record import COCO_METRICS, Record, SplitFingerprint


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
