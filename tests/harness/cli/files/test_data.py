"""``harness data verify``, and what ``harness score`` says of odd detections."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from tests.command import invoke
from tests.own_roots import root_of


def test_verify_shows_three_of_each_kind_and_counts_all(tmp_path: Path) -> None:
    root = root_of(tmp_path / "root", boxes=[{"bbox": [4, 5, -1, 8]}] * 9)
    result = CliRunner().invoke(app, ["data", "verify", str(root), "--split", "train"])
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[1].startswith("wrong: annotations/instances_train.json: annotation 9 of image 1: bbox")
    assert lines[4:] == [
        "wrong: annotations/instances_train.json: and 15 more boxes of a negative size",
        "18 problems",
    ]
    result = CliRunner().invoke(app, ["data", "verify", str(root), "--split", "train", "--json"])
    found = json.loads(result.stdout)
    assert (found["ok"], found["num_problems"], len(found["problems"])) == (False, 18, 18)
    assert found["problems"][0]["kind"] == "boxes of a negative size"


def test_verify_shows_no_control_characters_of_file_names(tmp_path: Path) -> None:
    root = root_of(tmp_path / "root")
    path = root / "annotations" / "instances_train.json"
    path.write_text(path.read_text().replace('"1.jpg"', json.dumps("\x1b[31m\n\udce9.jpg")))
    Path(os.fsdecode(bytes(root / "train") + b"/\xe9.jpg")).write_bytes(b"")
    result = CliRunner().invoke(app, ["data", "verify", str(root), "--split", "train", "--quick"])
    assert r"wrong: train/\x1b[31m\n\udce9.jpg: the image file is missing" in result.stdout.splitlines()
    assert r"2 images without an entry in the annotations, first 1.jpg" in result.stdout
    assert all(line.isprintable() for line in result.stdout.splitlines())


def test_verify_measures_the_anchors_of_a_set_of_its_own(tmp_path: Path) -> None:
    root = root_of(tmp_path / "root")
    lines = invoke("data", "verify", str(root)).stdout.splitlines()
    assert lines[-1] == "ok"
    assert lines[-2].startswith("note: train: at 800 pixels (profile paper) ")
    assert "on 2 images; a first batch must have" in lines[-2]
    assert "note" not in invoke("data", "verify", str(root), "--quick").stdout


def test_verify_is_strict_on_request(tmp_path: Path) -> None:
    root = root_of(tmp_path / "root", boxes=[{"iscrowd": False}])
    assert "note: train: 2 values of iscrowd" in invoke("data", "verify", str(root), "--quick").stdout
    result = CliRunner().invoke(app, ["data", "verify", str(root), "--quick", "--strict"])
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (1, "4 problems")


def test_score_tells_of_detections_that_leave_their_image(tmp_path: Path) -> None:
    root = root_of(tmp_path / "root")
    entry = {"image_id": 1, "category_id": 1, "bbox": [30, 5, 38, 28], "score": 0.5}
    (tmp_path / "found.json").write_text(json.dumps([entry, {**entry, "bbox": [4, 5, 10, 8]}]))
    result = invoke("score", str(tmp_path / "found.json"), "--data", str(root), "--split", "val", "--json")
    assert result.stderr.startswith("note: 1 of 2 detections leave their image: the first, number 0")
    assert json.loads(result.stdout)["AP"] == pytest.approx(25, abs=1)
