"""To the evaluation server, through the command: a trained row, its zip, and what is refused before it detects."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from detector.data.coco.files import annotations_sha256
from detector.data.coco.index import load_index
from detector.errors import DataError
from detector.evaluation.detections import Detections, read_detections
from detector.evaluation.scoring import coco_metrics
from detector.evaluation.test_dev.package import EXPORT_FILE, Export, find_exports, pack
from detector.runs.folder import RunDir
from detector.runs.job import AnnotatedFolder, CocoRelease
from detector.storage.reading import read_json
from harness.planning.data import identify
from support.micro import ALONE, micro_assignment, micro_job, write_experiments
from support.workplace import Workplace
from tests.answers import TEST_DEV, scores_text
from tests.exports import ROW, answer, copy_of, data_root, job, refused, row_of_table, run


@pytest.fixture
def place(trained_row: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workplace]:
    with copy_of(trained_row, tmp_path, monkeypatch) as place:
        yield place


def entries(path: Path) -> list[dict[str, Any]]:
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [f"{path.stem}.json"]
        return json.loads(archive.read(f"{path.stem}.json"))


def as_detections(rows: list[dict[str, Any]]) -> Detections:
    return Detections(
        np.array([row["image_id"] for row in rows]),
        np.array([row["category_id"] for row in rows]),
        np.array([row["bbox"] for row in rows]),
        np.array([row["score"] for row in rows]),
    )


def test_export_writes_what_it_detected(place: Workplace) -> None:
    out = place.root / "out"
    written = json.loads(run("export", ROW, "--out", str(out), "--name", "DR_1", "--json").rsplit("}\n", 1)[0] + "}")
    path = out / "detections_test-dev2017_DR_1_results.zip"
    assert written["zip"] == str(path)
    wanted = job(place)
    folder = place.run_dir(ROW)
    export = read_json(folder.evaluation(wanted.id) / EXPORT_FILE, Export)
    assert export.job == wanted
    assert export.sent is not None
    assert (export.sent.name, export.sent.sha256) == ("DR_1", hashlib.sha256(path.read_bytes()).hexdigest())
    assert export.test_split.sha256 == annotations_sha256(data_root(place), TEST_DEV)
    assert (export.test_split.images, export.test_split.boxes, export.train_split.images) == (6, 0, 24)
    assert export.environment["threads"] == "1"
    assert export.evaluation is not None
    assert export.inputs is not None
    assert export.inputs.test_images is not None
    sent, kept = as_detections(entries(path)), read_detections(folder.detections(wanted.id))
    assert len(sent) == export.sent.detections == len(kept) > 100
    np.testing.assert_allclose(sent.boxes, kept.boxes, atol=0.005001)
    assert np.bincount(sent.image_ids).max() <= 100
    # The images are val2017's: with its labels, what was sent scores as the run did on them.
    record = folder.read_record(micro_job(place.root / "experiments", ROW).id)
    assert record is not None
    assert (export.starts, export.code, export.inputs.train_images) == (
        record.starts,
        record.code,
        record.inputs.train_images if record.inputs else None,
    )
    scored = coco_metrics(load_index(data_root(place), "val2017"), sent)
    assert scored["AP50"]
    assert scored == {name: pytest.approx(record.metrics[name], abs=0.05) for name in scored}


def test_export_again_writes_the_same_zip_without_detecting(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    run("export", ROW)
    (path,) = place.run_dir(ROW).root.rglob("*.zip")
    assert path.name == f"detections_test-dev2017_table4-dr-r101-{job(place).id[:8]}_results.zip"
    before = path.read_bytes()
    monkeypatch.setattr("detector.evaluation.test_dev.detect.detect_split", None)
    text = run("export", ROW)
    assert "only the zip is written" in text
    assert path.read_bytes() == before


def test_export_rehearses_on_any_split_and_says_what_it_cuts(place: Workplace) -> None:
    out = place.root / "out"
    options = ("--set", "test.detections_per_image=150", "--set", "test.score_threshold=0", "--out", str(out))
    text = run("export", ROW, "--split", "val2017", *options)
    assert "The best 100 detections per image are written, not 150." in text
    (path,) = out.glob("detections_val2017_*.zip")
    assert np.bincount([row["image_id"] for row in entries(path)]).max() == 100
    (found,) = [export for _, export in find_exports(place.root / "runs") if export.job.split == "val2017"]
    assert found.job.test.detections_per_image == 150
    assert "overridden by --set" in found.notes[0]
    assert len(read_detections(place.run_dir(ROW).detections(found.eval_id))) > 600
    # Its answer is recorded under its own settings and fills no cell.
    asked = ("--split", "val2017", *options[:4])
    assert "harness export table4/dr-r101" in refused(
        place, "record", ROW, "--split", "val2017", *answer(place, scores_text())
    )
    assert "harness table" not in run("record", ROW, *asked, *answer(place, scores_text()))
    assert row_of_table(place)["status"] == "awaiting server"


def test_export_refuses_before_it_detects(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detector.evaluation.test_dev.detect.detect_split", None)
    root = data_root(place)
    assert "One row is needed" in refused(place, "export", "table4")
    assert "No trained weights of table4/dr-x101" in refused(place, "export", "table4/dr-x101")
    assert "letters, digits" in refused(place, "export", ROW, "--name", "a b")
    assert "test settings only, not optimizer.lr" in refused(place, "export", ROW, "--set", "optimizer.lr=1")
    assert "Unknown device 'tpu'" in refused(place, "export", ROW, "--device", "tpu")
    assert "no such split 'nowhere'" in refused(place, "export", ROW, "--split", "nowhere")
    (root / "test2017" / "000000000002.png").write_text("no image")
    assert "000000000002.png: not an image" in refused(place, "export", ROW)
    (root / "test2017" / "000000000002.png").unlink()
    message = refused(place, "export", ROW)
    assert "test2017 lacks 1 of the 6 image files of test-dev2017, first 000000000002.png. Fetch image_info" in message
    assert f"harness data verify {root} --split test-dev2017" in message
    path = root / "annotations" / f"image_info_{TEST_DEV}.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"categories": content["categories"][:-1]}))
    assert "has 2 categories, the training has 3; they differ in the ids 3" in refused(place, "export", ROW)
    path.write_text(path.read_text()[:-5])
    assert "not a readable COCO image_info file" in refused(place, "export", ROW)
    path.unlink()
    message = refused(place, "export", ROW)
    assert "Fetch image_info_test2017.zip and test2017.zip from cocodataset.org" in message


def test_export_over_other_images_never_replaces_the_first(place: Workplace) -> None:
    run("export", ROW)
    path = data_root(place) / "annotations" / f"image_info_{TEST_DEV}.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"images": content["images"][:3]}))
    assert "another annotation file than that of" in refused(place, "export", ROW)


def test_export_of_a_run_without_any_record_says_to_finish_it(place: Workplace) -> None:
    for path in place.run_dir(ROW).root.glob("evals/*/record.json"):
        path.unlink()
    assert "trained, but not evaluated" in refused(place, "export", ROW)


def test_open_export_split_counts_the_images_of_the_coco_release(place: Workplace) -> None:
    from detector.evaluation.test_dev.detect import open_export_split

    wanted = job(place)
    assert open_export_split(wanted, data_root(place)).num_images == 6
    release = CocoRelease(release="2017", train_split="train2017", test_split="val2017")
    with pytest.raises(DataError, match="6 images, 0 boxes, 3 categories, not 20,288 images, 0 boxes, 80 categories"):
        open_export_split(replace(wanted, train=replace(wanted.train, data=release)), data_root(place))


@pytest.mark.coco
@pytest.mark.slow
def test_detect_and_store_finds_on_real_images_what_their_evaluation_found(coco_tiny: Path, tmp_path: Path) -> None:
    """A network as it is before training, on the validation images with and without their labels."""
    import torch
    from pycocotools.coco import COCO

    from detector.build import build_model
    from detector.evaluation.test_dev.detect import Origin, detect_and_store, open_export_split
    from detector.weights import checkpoint
    from detector.worker.run import evaluate_and_record

    root = tmp_path / "coco"
    shutil.copytree(coco_tiny / "annotations", root / "annotations")
    content = json.loads((root / "annotations" / "instances_val2017.json").read_text())
    del content["annotations"]
    (root / "annotations" / f"image_info_{TEST_DEV}.json").write_text(json.dumps(content))
    for split, folder in (("train2017", "train2017"), ("val2017", "val2017"), ("val2017", "test2017")):
        (root / folder).symlink_to(coco_tiny / split)
    source = AnnotatedFolder(
        train_split="train2017", test_split="val2017", num_images=None, train_sha256=None, test_sha256=None
    )
    micro = micro_job(write_experiments(tmp_path / "experiments"))
    own = replace(micro, train=replace(micro.train, data=identify(source, root)))
    index = load_index(root, "val2017")
    torch.manual_seed(0)
    model = build_model(own.train, num_classes=80, test=own.test)
    with torch.no_grad():
        model.head.classification_head["cls_logits"].weight.mul_(20)  # spread the scores
    run_dir = RunDir(tmp_path / "runs" / own.train.id)
    state = {
        "model": model.state_dict(),
        "category_ids": index.category_ids.tolist(),
        "category_names": list(index.category_names),
        "executions": [[1, 1]],
        "seconds": 1.0,
    }
    checkpoint.save(run_dir.final, state)
    assignment = micro_assignment(own, run_dir.root, root)
    evaluate_and_record(assignment, own, run_dir, world=ALONE, heartbeat=None)
    sent_job = replace(own, split=TEST_DEV)
    origin = Origin(assignment.profile, assignment.code, ())
    unlabelled = open_export_split(sent_job, root)
    shares: list[float] = []
    export = detect_and_store(origin, sent_job, run_dir, unlabelled, world=ALONE, report=shares.append)
    assert export.test_split.images == len(shares) == index.num_images
    assert shares[-1] == 1
    found, own_found = (read_detections(run_dir.detections(key)) for key in (sent_job.id, own.id))
    assert len(found) > 10 * index.num_images
    for column in ("image_ids", "category_ids", "boxes", "scores"):
        np.testing.assert_array_equal(getattr(found, column), getattr(own_found, column))
    (tmp_path / "detections.zip").write_bytes(pack(found, TEST_DEV, "x")[0])
    with zipfile.ZipFile(tmp_path / "detections.zip") as archive:
        archive.extractall(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(root / "annotations" / f"image_info_{TEST_DEV}.json"))
        loaded = truth.loadRes(str(tmp_path / "detections_test-dev2017_x_results.json"))
    assert len(loaded.anns) == len(found)
