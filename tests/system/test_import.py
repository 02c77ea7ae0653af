"""From another tool's export to a record, by the commands that the import prints."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import shlex
from pathlib import Path

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from support.own_data import own_data
from support.workplace import Workplace


def to_yolo(root: Path, out: Path) -> Path:
    """A YOLO export with the boxes of a COCO root."""
    names = ["0", "1", "2"]
    for split in ("train", "val"):
        content = json.loads((root / "annotations" / f"instances_{split}.json").read_text())
        names = [row["name"] for row in content["categories"]]
        label = {row["id"]: i for i, row in enumerate(content["categories"])}
        for folder in ("images", "labels"):
            (out / folder / split).mkdir(parents=True)
        for image in content["images"]:
            (root / split / image["file_name"]).rename(out / "images" / split / image["file_name"])
            width, height = image["width"], image["height"]
            lines = [
                f"{label[row['category_id']]} {(x + w / 2) / width} {(y + h / 2) / height} {w / width} {h / height}\n"
                for row in content["annotations"]
                if row["image_id"] == image["id"]
                for x, y, w, h in [row["bbox"]]
            ]
            (out / "labels" / split / image["file_name"]).with_suffix(".txt").write_text("".join(lines))
    (out / "data.yaml").write_text(
        f"path: /elsewhere\ntrain: images/train\nval: images/val\nnames: {json.dumps(names)}\n"
    )
    return out


def score(truth: Path, detections: Path) -> dict[str, float]:
    """By pycocotools, in percent."""
    with contextlib.redirect_stdout(io.StringIO()):
        own = COCO(str(truth))
        evaluation = COCOeval(own, own.loadRes(json.loads(gzip.decompress(detections.read_bytes()))), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: 100 * float(evaluation.stats[i]) for i, name in enumerate(("AP", "AP50", "AP75"))}


@pytest.mark.slow
def test_an_import_trains_to_a_record_with_the_commands_that_it_prints(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    source = to_yolo(own_data(tmp_path / "coco", splits=("train", "val")), tmp_path / "export")
    said = place.harness("data", "import", str(source), "--out", str(tmp_path / "kitchen"))
    assert "split: the export's own splits" in said
    commands = [shlex.split(line)[1:] for line in said.splitlines() if line.startswith("  harness ")]
    assert [command[:2] for command in commands] == [["data", "verify"], ["new", "profile"], ["run", "table2/L6"]]
    # The profile first: it makes the folder that this test's HARNESS_EXPERIMENTS names.
    place.harness(*commands[1], "--cpu", "--iterations", "30")
    place.harness(*commands[0])
    assert "Done." in place.harness(*commands[2])
    (record,) = tmp_path.glob("runs/*/evals/*/record.json")
    (detections,) = tmp_path.glob("runs/*/evals/*/detections.json.gz")
    metrics = json.loads(record.read_bytes())["metrics"]
    expected = score(tmp_path / "kitchen/annotations/instances_val.json", detections)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-9)
