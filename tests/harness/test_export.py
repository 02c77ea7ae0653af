"""To the evaluation server and back, through the command: a trained row, its zip, an answer, the filled cell."""

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
import yaml
from msgspec.structs import replace
from typer.testing import CliRunner

from detector.data.coco import annotations_sha256, load_index
from detector.data.shapes import shapes_folder_name
from detector.detections import Detections, coco_metrics, read_detections
from detector.errors import DataError, HarnessError, UsageError
from detector.job import AnnotatedFolder, CocoRelease, EvalJob
from detector.record import Code, SplitFingerprint
from detector.rundir import RunDir, read_json
from detector.server import EXPORT_FILE, Export, Sent, find_exports, pack, write_export
from harness.cli import app
from harness.plan import identify
from harness.session import Session
from tests.detector.test_server import NUMBERS, PERCENT, scores_text, summary_text
from tests.micro import micro_assignment, micro_job, write_experiments
from tests.workplace import Workplace, make_workplace

ROW = "table4/dr-r101"
TEST_DEV = "test-dev2017"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """One row of Table 4 trained, at a scale that may stand against the paper; test-dev is val2017 without labels."""
    place = make_workplace(tmp_path_factory.mktemp("server"), iterations=8)
    path = place.root / "experiments" / "profiles" / "tiny.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"compare_with_paper": True}))
    place.harness("run", ROW, "--profile", "tiny")
    root = data_root(place)
    content = json.loads((root / "annotations" / "instances_val2017.json").read_text())
    del content["annotations"]
    (root / "annotations" / f"image_info_{TEST_DEV}.json").write_text(json.dumps(content))
    shutil.copytree(root / "val2017", root / "test2017")
    return place


@pytest.fixture
def place(trained: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workplace]:
    """A copy of it, which the command in this process works in."""
    place = Workplace(Path(shutil.copytree(trained.root, tmp_path / "place")))
    for name, value in place.environment.items():
        if name.startswith("HARNESS_"):
            monkeypatch.setenv(name, value)
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    before = files(place)
    yield place
    assert not [path for path in files(place) - before if path.suffix == ".tmp"]


def data_root(place: Workplace) -> Path:
    return place.root / "runs" / "data" / shapes_folder_name(job(place).train.data)  # type: ignore[arg-type]


def job(place: Workplace, ref: str = ROW) -> EvalJob:
    return replace(micro_job(place.root / "experiments", ref), split=TEST_DEV)


def files(place: Workplace) -> set[Path]:
    return {path for path in place.root.rglob("*") if path.is_file()}


def run(*arguments: str) -> str:
    """The command in this process: its standard output and error."""
    result = CliRunner().invoke(app, [*arguments, "--profile", "tiny"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refused(place: Workplace, *arguments: str) -> str:
    """The message of a command that must refuse, having written nothing."""
    before = files(place)
    with pytest.raises(HarnessError) as caught:
        CliRunner().invoke(app, [*arguments, "--profile", "tiny"], catch_exceptions=False)
    assert files(place) == before
    return str(caught.value)


def answer(place: Workplace, text: str) -> tuple[str, str]:
    """The options that name a file with that text."""
    path = place.root / "answer.txt"
    path.write_text(text)
    return "--from-server", str(path)


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


def row_of_table(place: Workplace) -> dict[str, Any]:
    (table,) = json.loads(run("table", ROW, "--json"))
    (row,) = table["rows"]
    return row


def test_export_and_record_fill_the_cell(place: Workplace) -> None:
    assert row_of_table(place)["status"] == "awaiting server"
    text = run("export", ROW)
    assert f"harness record {ROW} --profile tiny --split {TEST_DEV} --from-server FILE" in text
    shutil.rmtree(data_root(place))  # the answer needs no data
    text = run("record", ROW, *answer(place, summary_text()))
    assert "41.700" in text
    row = row_of_table(place)
    assert (row["status"], row["n"]) == ("measured", 1)
    assert {name: mean["mean"] for name, mean in row["ours"].items()} == dict(list(PERCENT.items())[:6])
    assert row["verdicts"]["AP"]["difference"] == 0
    printed = run("table", ROW)
    assert "awaiting server" not in printed
    assert "41.7" in printed
    assert "consistent" in run("check", "table4")
    assert "2 new records" in run("collect")  # minival's and the server's
    assert row_of_table(place)["status"] == "measured"


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
    sent, kept = as_detections(entries(path)), read_detections(folder.detections(wanted.id))
    assert len(sent) == export.sent.detections == len(kept) > 100
    np.testing.assert_allclose(sent.boxes, kept.boxes, atol=0.005001)
    assert np.bincount(sent.image_ids).max() <= 100
    # The images are val2017's: with its labels, what was sent scores as the run did on them.
    record = folder.read_record(micro_job(place.root / "experiments", ROW).id)
    assert record is not None
    scored = coco_metrics(load_index(data_root(place), "val2017"), sent)
    assert scored["AP50"]
    assert scored == {name: pytest.approx(record.metrics[name], abs=0.05) for name in scored}


def test_export_again_writes_the_same_zip_without_detecting(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    run("export", ROW)
    (path,) = place.run_dir(ROW).root.rglob("*.zip")
    assert path.name == f"detections_test-dev2017_table4-dr-r101-{job(place).id[:8]}_results.zip"
    before = path.read_bytes()
    monkeypatch.setattr("detector.export.detect_split", None)
    text = run("export", ROW)
    assert "only the zip is written" in text
    assert path.read_bytes() == before


def test_export_rehearses_on_any_split_and_says_what_it_cuts(place: Workplace) -> None:
    out = place.root / "out"
    options = ("--set", "test.detections_per_image=150", "--set", "test.score_threshold=0", "--out", str(out))
    text = run("export", ROW, "--split", "val2017", *options)
    assert "The best 100 detections an image are written, not 150." in text
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
    monkeypatch.setattr("detector.export.detect_split", None)
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
    assert "has 2 categories, the training split has 3; they differ in the ids 3" in refused(place, "export", ROW)
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
    from detector.export import open_export_split

    wanted = job(place)
    assert open_export_split(wanted, data_root(place)).num_images == 6
    release = CocoRelease(release="2017", train_split="train2017", test_split="val2017")
    with pytest.raises(DataError, match="6 images, 0 boxes, 3 categories, not 20,288 images, 0 boxes, 80 categories"):
        open_export_split(replace(wanted, train=replace(wanted.train, data=release)), data_root(place))


def test_record_holds_the_answer_and_what_was_sent(place: Workplace) -> None:
    run("export", ROW)
    run("record", ROW, *answer(place, scores_text((*NUMBERS[:3], -1, *NUMBERS[4:]))))
    folder, wanted = place.run_dir(ROW), job(place)
    record = folder.read_record(wanted.id)
    assert record is not None
    assert (record.job, record.eval_id, record.train_id) == (wanted, wanted.id, wanted.train.id)
    assert record.metrics == PERCENT | {"APS": None}
    assert record.notes[-1] == "numbers of the evaluation server, as printed (3 decimals)"
    own = folder.read_record(micro_job(place.root / "experiments", ROW).id)
    assert own is not None
    assert (record.train_split, record.train_seconds) == (own.train_split, own.train_seconds)
    assert record.test_split.boxes == 0
    assert record.profile == "tiny"
    # A cell of that size stays empty, and nothing else stumbles over it, nor over scores that are not there.
    row = row_of_table(place)
    assert "APS" not in row["ours"]
    assert run("table", "all").count("41.7") >= 2
    run("check", "all")


def test_record_finds_the_one_export_that_awaits_an_answer(place: Workplace) -> None:
    run("export", ROW)
    assert "The answer to table4-dr-r101-" in run("record", *answer(place, summary_text()))
    message = refused(place, "record", *answer(place, summary_text()))
    assert "0 exports to test-dev2017 in" in message
    assert "name the row, such as table4/dr-r101" in message


def test_record_again_keeps_the_first(place: Workplace) -> None:
    run("export", ROW)
    run("record", ROW, *answer(place, summary_text()))
    path = place.run_dir(ROW).record(job(place).id)
    before = path.read_bytes()
    six = "".join(scores_text().splitlines(keepends=True)[:6])
    assert "recorded already" in run("record", ROW, *answer(place, six))
    assert path.read_bytes() == before  # the recalls stay
    other = answer(place, summary_text().replace("0.417", "0.418"))
    assert "AP 41.7, not 41.8" in refused(place, "record", ROW, *other)
    run("collect")
    path.unlink()
    assert "AP 41.7, not 41.8" in refused(place, "record", ROW, *other)  # the results hold it too
    assert "recorded already" in run("record", ROW, *answer(place, summary_text()))
    path.write_bytes(before)


def test_record_refuses_what_was_not_exported_and_bad_files(place: Workplace) -> None:
    good = answer(place, summary_text())
    message = refused(place, "record", ROW, *good)
    assert f"Export it: harness export {ROW} --profile tiny --split {TEST_DEV}" in message
    assert "One row is needed" in refused(place, "record", "table4", *good)
    run("export", ROW)
    assert "seed 1, was not exported" in refused(place, "record", ROW, "--seed", "1", *good)
    assert "was not exported for val2017" in refused(place, "record", ROW, "--split", "val2017", *good)
    assert "test settings only" in refused(place, "record", ROW, "--set", "optimizer.lr=1", *good)
    assert "incomplete: no AP_large" in refused(place, "record", ROW, *answer(place, summary_text()[:420]))
    assert "none of the server's numbers" in refused(place, "record", ROW, *answer(place, "{}"))
    path = place.run_dir(ROW).evaluation(job(place).id) / EXPORT_FILE
    content = path.read_text()
    path.write_text(content.replace('"margin": 0.5', '"margin": 0.4'))
    assert "it was edited, moved, or written by code" in refused(place, "record", ROW, *good)
    path.write_text(content[:-9])
    assert "cannot be read as Export" in refused(place, "record", ROW, *answer(place, summary_text()))


def exported_over(place: Workplace, sha256: str, *, from_scratch: bool) -> Export:
    """An export of table2/L6 of the smoke profile over a folder with that annotation file, written by hand."""
    session = Session("table2/L6", "smoke", [], None)
    (cell,) = session.plan(1, from_scratch=from_scratch).cells
    source = cell.job.train.data
    assert isinstance(source, AnnotatedFolder)
    assert source.test_sha256 is None
    train = replace(cell.job.train, data=replace(source, train_sha256=sha256, test_sha256=sha256))
    wanted = replace(cell.job, train=train, split=TEST_DEV)
    export = Export(
        format=1,
        eval_id=wanted.id,
        profile="smoke",
        job=wanted,
        train_split=SplitFingerprint(images=1, boxes=1, sha256=sha256),
        test_split=SplitFingerprint(images=1, boxes=0, sha256=sha256),
        environment={},
        code=Code(version="0", commit=None, modified=None),
        train_seconds=1.0,
        seconds=1.0,
        finished="",
        notes=("a note",),
        sent=Sent(name="x", detections=0, sha256=""),
    )
    write_export(session.store.run_dir(train.id), export)
    return export


def test_record_finds_an_export_over_any_one_folder(place: Workplace) -> None:
    arguments = ["record", "table2/L6", "--profile", "smoke", *answer(place, summary_text())]

    def asked() -> None:
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output

    other = exported_over(place, "a" * 64, from_scratch=True)
    asked()
    record = RunDir(place.root / "runs" / other.job.train.id).read_record(other.eval_id)
    assert record is not None
    assert record.notes == ("a note", "numbers of the evaluation server, as printed (3 decimals)")
    first = exported_over(place, "b" * 64, from_scratch=False)
    asked()  # with pretrained weights comes first
    assert RunDir(place.root / "runs" / first.job.train.id).read_record(first.eval_id) is not None
    exported_over(place, "c" * 64, from_scratch=False)
    with pytest.raises(UsageError, match="exported over 2 data sets. Say which with --data DIR"):
        asked()


def test_record_needs_a_zip_that_was_written(place: Workplace) -> None:
    run("export", ROW)
    ((run_dir, export),) = find_exports(place.root / "runs")
    write_export(run_dir, replace(export, sent=None))  # as a crash before the zip leaves it
    assert "was not exported for test-dev2017" in refused(place, "record", ROW, *answer(place, summary_text()))


@pytest.mark.coco
def test_detect_and_store_finds_on_real_images_what_their_evaluation_found(coco_tiny: Path, tmp_path: Path) -> None:
    """A network as it is before training, on the validation images with and without their labels."""
    import torch
    from pycocotools.coco import COCO

    from detector import checkpoint
    from detector.build import build_model
    from detector.export import Origin, detect_and_store, open_export_split
    from detector.finish import evaluate_and_record
    from detector.world import World

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
    world = World(0, 1, torch.device("cpu"))
    evaluate_and_record(assignment, own, run_dir, world=world, heartbeat=None)
    sent_job = replace(own, split=TEST_DEV)
    origin = Origin(assignment.profile, assignment.code, ())
    unlabelled = open_export_split(sent_job, root)
    shares: list[float] = []
    export = detect_and_store(origin, sent_job, run_dir, unlabelled, world=world, report=shares.append)
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
