"""The line on real COCO images: the smoke profile's ResNet-50 shrunk to seconds, and eight images learned by heart."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from detector.data.coco.index import load_index, select, trainable
from detector.runs.folder import RunDir
from detector.runs.job import TrainJob
from detector.runs.record import Record
from detector.storage.reading import read_json
from harness.folders import experiments_folder


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


def short_smoke(folder: Path) -> Path:
    """The project's experiments, the smoke profile shrunk to two iterations on four images."""
    shutil.copytree(experiments_folder(), folder)
    path = folder / "profiles" / "smoke.yaml"
    profile = yaml.safe_load(path.read_text()) | {"iterations_1x": 2, "short_side_800": 64}
    profile["settings"]["data"]["num_images"] = 4
    profile["settings"]["schedule"]["warmup_iterations"] = 1
    del profile["anchor_ranges"]  # those of 160 pixels
    path.write_text(yaml.safe_dump(profile))
    return folder


def only_record(folder: Path) -> tuple[RunDir, Record]:
    (path,) = (folder / "runs").glob("*/evals/*/record.json")
    return RunDir(path.parents[2]), read_json(path, Record)


@pytest.mark.slow
@pytest.mark.coco
def test_smoke_runs_the_real_network_on_real_images_without_weights(coco_tiny: Path, tmp_path: Path) -> None:
    experiments = short_smoke(tmp_path / "experiments")
    arguments = ("table2/L6", "--profile", "smoke", "--data", str(coco_tiny))
    text = harness(tmp_path, "run", *arguments, experiments=experiments, timeout=240)
    assert "R-50.pkl" in text  # which file to fetch
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


SERVER = """
 Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.434
 Average Precision  (AP) @[ IoU=0.50      | area=   all | maxDets=100 ] = 0.621
 Average Precision  (AP) @[ IoU=0.75      | area=   all | maxDets=100 ] = 0.470
 Average Precision  (AP) @[ IoU=0.50:0.95 | area= small | maxDets=100 ] = 0.267
 Average Precision  (AP) @[ IoU=0.50:0.95 | area=medium | maxDets=100 ] = 0.461
 Average Precision  (AP) @[ IoU=0.50:0.95 | area= large | maxDets=100 ] = 0.550
"""


@pytest.mark.coco
@pytest.mark.slow
def test_table_4_runs_whole_on_real_images_to_the_servers_answer(coco_tiny: Path, tmp_path: Path) -> None:
    """Both backbones, scale jitter, longer schedules, nine scales that reuse the training, test-dev out and back."""
    root = tmp_path / "coco"
    shutil.copytree(coco_tiny / "annotations", root / "annotations")
    for split, folder in (("train2017", "train2017"), ("val2017", "val2017"), ("val2017", "test2017")):
        (root / folder).symlink_to(coco_tiny / split)
    info = json.loads((root / "annotations" / "instances_val2017.json").read_text())
    info = {"images": info["images"][:5], "categories": info["categories"]}
    (root / "annotations" / "image_info_test-dev2017.json").write_text(json.dumps(info))
    experiments = short_smoke(tmp_path / "experiments")
    at = ("--profile", "smoke", "--data", str(root))

    def command(*arguments: str) -> str:
        return harness(tmp_path, *arguments, experiments=experiments, timeout=600)

    assert "2 runs, 0 done, 2 to do" in command("run", "table4", *at)  # four rows, two trainings
    jobs = {record.parents[2].name: read_json(record.parents[2] / "job.json", TrainJob) for record in records(tmp_path)}
    found = {job.model.backbone: job for job in jobs.values()}
    assert {name: job.schedule.iterations for name, job in found.items()} == {"resnet101": 4, "resnext101_32x8d": 3}
    assert found["resnet101"].augmentation.short_sides == (51, 54, 56, 59, 61, 64)
    assert len(records(tmp_path)) == 4  # single scale and nine scales of each
    zipped = command("export", "table4/dr-r101-ms", *at).split()[0]
    with zipfile.ZipFile(zipped) as archive:
        (name,) = archive.namelist()
        assert name.startswith("detections_test-dev2017_")
        assert name.endswith("_results.json")
        assert {entry["image_id"] for entry in json.loads(archive.read(name))} <= {
            entry["id"] for entry in info["images"]
        }
    answer = tmp_path / "answer.txt"
    answer.write_text(SERVER)
    command("record", "table4/dr-r101-ms", "--from-server", str(answer), *at)
    table = json.loads(command("table", "table4", *at, "--format", "json"))
    row = next(row for row in table[0]["rows"] if row["ref"] == "table4/dr-r101-ms")
    assert row["ours"]["AP"]["mean"] == 43.4


def records(folder: Path) -> list[Path]:
    return sorted((folder / "runs").glob("*/evals/*/record.json"))


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
    shown = ("images", str(run.root), "--data", str(coco_tiny), "--out", str(tmp_path / "images"), *arguments[1:])
    assert "on 8 images of train2017" in harness(tmp_path, *shown, timeout=120)
    assert len(list((tmp_path / "images").glob("*.jpg"))) == 8
    assert "0 false, 0 of" in (tmp_path / "images" / "index.html").read_text()


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Of two xyxy boxes."""
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    areas = [np.prod(box[2:] - box[:2]) for box in (a, b)]
    return float(np.prod(sides) / (sum(areas) - np.prod(sides)))
