"""From each labelling tool's form to scores: imported, verified, trained, and scored as pycocotools scores."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.data.coco.files import annotation_file, annotations_sha256
from detector.data.coco.index import load_index
from detector.data.coco.verify import verify_root
from detector.data.imports.write import import_data
from detector.evaluation.detections import read_detections
from detector.evaluation.scoring import coco_metrics
from detector.runs.folder import RunDir
from detector.runs.job import AnnotatedFolder
from detector.worker.run import evaluate_and_record, train_to_final
from support.micro import ALONE, micro_assignment, micro_job, write_experiments
from tests.tool_exports import FORMS

NAMES = ("AP", "AP50", "AP75", "APS", "APM", "APL")


def peer(truth: Path, detections: list[dict[str, object]]) -> list[float]:
    """The six numbers of pycocotools, in percent; -1 where there is nothing of a size."""
    with contextlib.redirect_stdout(io.StringIO()):
        own = COCO(str(truth))
        evaluation = COCOeval(own, own.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [-1 if value < 0 else 100 * float(value) for value in evaluation.stats[:6]]


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_a_root_of_every_form_trains_and_is_scored_as_pycocotools_scores(tmp_path: Path, name: str) -> None:
    torch.set_num_threads(1)
    root = tmp_path / "root"
    import_data(FORMS[name](tmp_path / "export"), root)
    assert verify_root(root, decode=True).ok
    job = micro_job(write_experiments(tmp_path / "experiments", iterations=4))
    source = AnnotatedFolder("train", "val", None, *(annotations_sha256(root, split) for split in ("train", "val")))
    # Two images at most, each of its own: a group is half of a batch.
    batch = replace(job.train.batch, images=2)
    job = replace(job, train=replace(job.train, data=source, batch=batch))
    run = RunDir(tmp_path / "run")
    run.root.mkdir()
    assignment = micro_assignment(job, run.root, root)
    train_to_final(assignment, run, world=ALONE, heartbeat=None, stop=lambda: False)
    evaluate_and_record(assignment, job, run, world=ALONE, heartbeat=None)
    record = run.read_record(job.id)
    assert record is not None
    rows = json.loads(gzip.decompress(run.detections(job.id).read_bytes()))
    ours = [-1 if record.metrics[name] is None else record.metrics[name] for name in NAMES]
    assert rows
    _assert_same_scores(root, tmp_path / "near.json")
    assert ours == pytest.approx(peer(annotation_file(root, "val"), rows), abs=1e-9)


def _assert_same_scores(root: Path, path: Path) -> None:
    """Boxes near the true ones: four iterations find next to nothing, and zeros would be equal."""
    index, truth = load_index(root, "val"), annotation_file(root, "val")
    rows = [
        {"image_id": row["image_id"], "category_id": row["category_id"], "bbox": [x + 1, y, w, h], "score": 1 / (2 + i)}
        for i, row in enumerate(json.loads(truth.read_text())["annotations"])
        for x, y, w, h in [row["bbox"]]
    ]
    path.write_text(json.dumps(rows))
    found = coco_metrics(index, read_detections(path))
    ours = [-1 if found[name] is None else found[name] for name in NAMES]
    assert ours[0] > 10
    assert ours == pytest.approx(peer(truth, rows), abs=1e-9)
