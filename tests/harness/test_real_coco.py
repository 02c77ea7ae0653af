"""The line on real COCO images: the smoke profile's ResNet-50 shrunk to seconds, and eight images learned by heart."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from detector.data.coco import load_index, select, trainable
from detector.record import Record
from detector.rundir import RunDir, read_json
from harness.registry import experiments_folder


def harness(folder: Path, *arguments: str, experiments: Path | None = None, timeout: float) -> str:
    """The command, offline (a proxy that refuses); stdout and stderr after checking that it succeeded."""
    environment = {
        **os.environ,
        "HARNESS_RUNS": str(folder / "runs"),
        "HARNESS_RESULTS": str(folder / "results"),
        "HARNESS_WEIGHTS": str(folder / "weights"),
        "TORCH_HOME": str(folder / "torch"),
        "https_proxy": "http://127.0.0.1:9",
        "HARNESS_EXPERIMENTS": str(experiments or experiments_folder()),
    }
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def only_record(folder: Path) -> tuple[RunDir, Record]:
    (path,) = (folder / "runs").glob("*/evals/*/record.json")
    return RunDir(path.parents[2]), read_json(path, Record)


@pytest.mark.coco
def test_smoke_runs_the_real_network_on_real_images_without_weights(coco_tiny: Path, tmp_path: Path) -> None:
    experiments = tmp_path / "experiments"
    shutil.copytree(experiments_folder(), experiments)
    path = experiments / "profiles" / "smoke.yaml"
    profile = yaml.safe_load(path.read_text()) | {"iterations_1x": 2, "short_side_800": 64}
    profile["settings"]["data"]["num_images"] = 4
    profile["settings"]["schedule"]["warmup_iterations"] = 1
    path.write_text(yaml.safe_dump(profile))
    arguments = ("table2/L6", "--profile", "smoke", "--data", str(coco_tiny))
    text = harness(tmp_path, "run", *arguments, experiments=experiments, timeout=240)
    assert "resnet50-0676ba61.pth" in text  # which file to fetch
    assert "--weights FILE" in text  # and how to pass it
    assert "from scratch" in text
    _, record = only_record(tmp_path)
    assert record.job.train.model.backbone == "resnet50"
    assert (record.job.train.model.weights, record.job.train.model.norm) == ("none", "group")
    assert "not the paper's" in record.notes[0]
    assert record.test_split.images == 4
    # Again: nothing is trained, no download is tried.
    assert "1 done, 0 to do" in harness(tmp_path, "run", *arguments, experiments=experiments, timeout=60)
    # The record fills the row's cell, with or without the data being named.
    data = json.loads(
        harness(tmp_path, "table", "table2", "--profile", "smoke", "-f", "json", experiments=experiments, timeout=60)
    )
    assert {row["ref"]: row["n"] for row in data[0]["rows"]}["table2/L6"] == 1


@pytest.mark.coco
@pytest.mark.slow
def test_overfit_learns_eight_real_images_by_heart(coco_tiny: Path, tmp_path: Path) -> None:
    arguments = ("table2/L6", "--profile", "overfit")
    harness(tmp_path, "run", *arguments, "--data", str(coco_tiny), timeout=1200)
    run, record = only_record(tmp_path)
    assert record.train_split == record.test_split
    assert record.test_split.images == 8
    assert record.metrics["AP"] is not None
    assert record.metrics["AP"] > 50
    # The largest object of each image is found by name and place, in the pixels of the original file.
    index = load_index(coco_tiny, "train2017")
    index = select(index, trainable(index)[:8])
    images = [str(index.image_path(i)) for i in range(8)]
    harness(tmp_path, "detect", *images, "--out", str(tmp_path / "drawn"), "--run", str(run.root), timeout=120)
    found = json.loads((tmp_path / "drawn" / "detections.json").read_text())
    hits = 0
    for i, image in enumerate(images):
        rows = index.annotations_of(i)
        largest = int(np.argmax(np.where(index.crowd[rows], 0, index.areas[rows])))
        box, name = index.boxes[rows][largest], index.category_names[index.labels[rows][largest]]
        hits += any(entry["name"] == name and iou(np.array(entry["box"]), box) > 0.5 for entry in found[image])
    assert hits >= 7


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Of two xyxy boxes."""
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    areas = [np.prod(box[2:] - box[:2]) for box in (a, b)]
    return float(np.prod(sides) / (sum(areas) - np.prod(sides)))
