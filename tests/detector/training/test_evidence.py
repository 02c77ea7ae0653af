"""What a record holds of a training's log, and when its health is looked at."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from detector.data.splits import open_split
from detector.runs.findings import Health, Scores
from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.runs.origin.conditions import MOST_STARTS
from detector.runs.provenance import FileDigest, ImagesDigest, Inputs, Start
from detector.runs.record import Record, content_hash
from detector.storage.files import write_json
from detector.training.evidence import LOSSES, HealthWatch, curves_of, log_lines
from support.records import record_of

COLUMNS = ("classification", "bbox_regression", "loss", "lr", "seconds_per_iteration", "data_seconds_per_iteration")
MORE = ("host_seconds_per_iteration", "device_busy", "images_per_second", "peak_memory_gib")
EVERY = range(1, 90_001, 10)
GRADIENTS = ("gradient_backbone", "gradient_pyramid", "gradient_classifier", "gradient_boxes")


def long_log() -> list[dict[str, float]]:
    """Of 90,000 iterations, a line for every tenth."""
    names = (*COLUMNS, *MORE, *GRADIENTS)
    falling = [{"iteration": i, **{name: (2 if name in LOSSES else 0.2) - i / 1e6 for name in names}} for i in EVERY]
    return [{**line, "images_per_second": 100 + 1e-4 * line["iteration"]} for line in falling]


def test_a_curve_keeps_200_points_with_both_ends() -> None:
    curves = curves_of(long_log())
    assert curves is not None
    assert len(curves.iterations) == 200
    assert (curves.iterations[0], curves.iterations[-1]) == (1, 89_991)
    assert list(curves.iterations) == sorted(set(curves.iterations))
    assert curves.values["loss"][:2] == (2.0, 2.0)
    assert curves.values["lr"][-1] == 0.11
    assert {len(values) for values in curves.values.values()} == {200}


def test_a_short_curve_is_kept_whole_and_an_empty_one_is_none() -> None:
    curves = curves_of([{"iteration": 1, "loss": 2.0}, {"iteration": 2, "loss": 1.0, "device_busy": 0.5}])
    assert curves is not None
    assert curves.iterations == (1, 2)
    assert curves.values == {"loss": (2.0, 1.0), "device_busy": (None, 0.5)}
    assert curves_of([]) is None


def test_the_largest_record_is_at_most_40_kb(job: EvalJob, tmp_path: Path) -> None:
    """Of a training of 90,000 iterations on COCO that was queued again each hour."""
    record = record_of(job)
    versions = {f"library {i}": "2.9.0+cu128" for i in range(12)}
    start = Start(
        time=record.finished, code=record.code, environment=versions, processes=8, threads=4, precision="bf16"
    )
    images = ImagesDigest(images=118_287, bytes=19 * 10**9, names_and_sizes="0" * 64)
    counts = tuple(10**10 + i for i in range(100))
    record = replace(
        record,
        format=2,
        starts=(start,) * MOST_STARTS,
        evaluation=start,
        inputs=Inputs(weights=FileDigest(name="R-50.pkl", sha256="0" * 64), train_images=images, test_images=images),
        health=(Health(name="no learning", message="long " * 40),) * 3,
        scores=Scores(positives=counts, negatives=counts, positive_sums=(0.1, 0.2), negative_sums=(0.1, 0.2)),
        curves=curves_of(long_log()),
    )
    record = replace(record, sha256=content_hash(record))
    write_json(tmp_path / "record.json", record)
    content = (tmp_path / "record.json").read_bytes()
    assert len(content) <= 40_000
    read = msgspec.json.decode(content, type=Record)
    assert read == record
    assert content_hash(read) == read.sha256


def test_health_is_said_once_in_the_second_half(
    job: EvalJob, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunDir(tmp_path)
    schedule = replace(job.train.schedule, iterations=100)
    index = open_split(job.train.data, data, "train")
    watch = HealthWatch(run, replace(job.train, schedule=schedule), index)
    flat = [{"iteration": i, "classification": 2.0, "bbox_regression": 1.0} for i in range(1, 60)]
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in flat))
    with caplog.at_level(logging.WARNING):
        assert watch.look(50) == ()
        said = ("no learning: the classification loss is 2 at the end, 2 in the first iteration",)
        assert watch.look(60) == watch.look(61) == watch.look(70) == said
    assert [record.message for record in caplog.records] == [*said]


def test_a_torn_line_of_the_log_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert log_lines(path) == []
    path.write_text('{"iteration": 1, "loss": 2.0}\n{"iter}\n[1]\n{"loss": 1.0}\n{"iteration": 2, "lo')
    assert log_lines(path) == [{"iteration": 1, "loss": 2.0}]
