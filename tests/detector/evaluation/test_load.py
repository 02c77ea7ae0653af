"""A run's folder as a detector: three lines of a notebook, and folders that hold none."""

from __future__ import annotations

import doctest
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from PIL import Image

import detector
from detector.build import build_model
from detector.errors import DataError, RecordError, WeightsError
from detector.evaluation import load
from detector.evaluation.inference import detect_image
from detector.evaluation.load import TrainedRun, load_run
from detector.runs.code import Code
from detector.runs.folder import RunDir
from detector.runs.job import TestSettings
from detector.runs.record import RECORD_FORMAT, Record, SplitFingerprint, content_hash
from detector.storage.files import write_json
from detector.weights import checkpoint
from support.micro import micro_job, write_experiments

SPLIT = SplitFingerprint(images=6, boxes=9, sha256="0" * 64)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run's folder, beside it an image; all of the model's scores are around 0.9, the first class's."""
    folder = tmp_path_factory.mktemp("load")
    evaluation = micro_job(write_experiments(folder / "experiments"))
    every = replace(evaluation.test, score_threshold=0.1, candidates_per_level=10_000, detections_per_image=10_000)
    evaluation = replace(evaluation, test=every)
    job = evaluation.train
    run = RunDir(folder / "runs" / job.id)
    run.checkpoints.mkdir(parents=True)
    run.evaluation(evaluation.id).mkdir(parents=True)
    torch.manual_seed(0)
    model = build_model(job, num_classes=3, test=evaluation.test)
    with torch.no_grad():
        model.head.classification_head["cls_logits"].bias.view(-1, 3)[:] = torch.tensor([2.5, -1.0, -3.0])
    final = {
        "model": model.state_dict() | {"criterion.classification_loss.counts": torch.zeros(3)},
        "category_ids": [3, 17, 900],
        "category_names": ["person", "car", "dog"],
        "executions": [[1, 1]],
        "seconds": 1.0,
    }
    checkpoint.save(run.final, final)
    write_json(run.job, job)
    record = Record(
        format=RECORD_FORMAT,
        eval_id=evaluation.id,
        train_id=job.id,
        profile="tiny",
        job=evaluation,
        metrics={"AP": 1.0},
        train_split=SPLIT,
        test_split=SPLIT,
        environment={},
        code=Code(version="0", commit=None, modified=None),
        train_seconds=1.0,
        eval_seconds=1.0,
        finished="2026-01-01T00:00:00+00:00",
        notes=(),
    )
    write_json(run.record(evaluation.id), replace(record, sha256=content_hash(record)))
    pixels = np.random.default_rng(0).integers(0, 256, (120, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "street.jpg")
    return run.root


@pytest.fixture(scope="module")
def run(trained: Path) -> TrainedRun:
    return detector.load_run(trained)


def test_the_docstrings_example_is_true(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained.parents[1])
    (trained.parent / "my-detector").symlink_to(trained)
    tests = doctest.DocTestFinder().find(load_run, "load_run", module=load)
    assert sum(len(test.examples) for test in tests) == 4
    for test in tests:
        assert doctest.DocTestRunner().run(test).failed == 0


def test_detect_gives_what_the_model_says_by_name_in_the_images_own_pixels(trained: Path, run: TrainedRun) -> None:
    file = trained.parents[1] / "street.jpg"
    image = Image.open(file)

    found = run.detect(file)

    expected = detect_image(run.model, image, run.model.test)
    assert len(found) == len(expected["scores"]) > 5
    assert [entry.score for entry in found] == sorted(expected["scores"].tolist(), reverse=True)
    assert [list(entry.box) for entry in found] == expected["boxes"].tolist()
    assert max(entry.box[3] for entry in found) > 80  # the image is 80 x 120 pixels, the network saw 64 x 96
    assert {entry.name for entry in found} >= {"person", "car"}
    assert all((entry.name == "person") == (entry.score > 0.6) for entry in found)
    assert run.detect(image) == run.detect(str(file)) == found


def test_detect_leaves_out_what_scores_less(trained: Path, run: TrainedRun) -> None:
    found = run.detect(trained.parents[1] / "street.jpg", min_score=0.6)
    assert found
    assert {entry.name for entry in found} == {"person"}


def test_detect_takes_images_of_any_mode_and_refuses_what_is_none(trained: Path, run: TrainedRun) -> None:
    image = Image.open(trained.parents[1] / "street.jpg").convert("L")
    deep = Image.fromarray(np.asarray(image).astype(np.uint16) << 8)
    assert run.detect(image) == run.detect(image.convert("RGBA")) == run.detect(deep)
    with pytest.raises(DataError, match=r"job\.json is not an image that can be read"):
        run.detect(trained / "job.json")
    with pytest.raises(DataError, match="The image cannot be used: it holds 32 bits per channel"):
        run.detect(Image.new("F", (32, 32)))


def test_a_run_knows_its_categories_and_how_it_was_tested(trained: Path, run: TrainedRun) -> None:
    assert (run.names, run.category_ids) == (("person", "car", "dog"), (3, 17, 900))
    assert run.model.test.score_threshold == 0.1
    assert not run.model.training
    other: TestSettings = replace(run.model.test, score_threshold=0.5)
    assert load_run(trained, test=other).model.test == other


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("job.json", r"is not the folder of a finished training: it has no job\.json.*'harness status'"),
        ("checkpoints", r"is not the folder of a finished training: it has no checkpoints/final\.pt.*'harness run'"),
        ("evals", r"has no finished evaluation to take the test settings from.*test="),
    ],
)
def test_a_folder_without_a_finished_run_is_refused(trained: Path, tmp_path: Path, gone: str, message: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns(gone))
    with pytest.raises(RecordError, match=message):
        load_run(folder)


def test_weights_of_another_network_are_refused(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    final = checkpoint.load(RunDir(folder).final)
    del final["model"]["head.classification_head.cls_logits.bias"]
    checkpoint.save(RunDir(folder).final, final)
    with pytest.raises(
        WeightsError, match=r"final\.pt, for its job\.json, does not hold .*: lacks head\S+cls_logits\.bias\.$"
    ):
        load_run(folder)
