"""What ``harness compare`` says of the kinds of errors: from records, from detections, and where it is unknown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from detector.data.coco.files import annotation_file, annotations_sha256
from detector.data.splits import fingerprint
from detector.evaluation.detections import Detections, write_detections
from detector.evaluation.errors import errors_of
from detector.evaluation.scoring import coco_metrics
from detector.runs.findings import KINDS, SIZES, LostAP, LostClasses, LostParts, Part
from detector.runs.folder import RunDir
from detector.runs.job import AnnotatedFolder
from detector.runs.record import Record, content_hash, read_record
from detector.storage.files import write_json
from harness.report.compare.comparison import as_data, compare
from harness.report.compare.errors import ErrorsOf
from harness.report.compare.errors_text import errors_text
from harness.report.compare.text import comparison_text
from harness.verdicts.estimates import paired
from support.records import record_of
from tests.conftest import PROJECT
from tests.detector.evaluation.test_reweighted import IMAGES, random_scene
from tests.harness.report.compare.test_compare import job_of

SIDES = ["table2/focal", "table2/L6"]
AP50 = {"table2/focal": (40.0, 42.0), "table2/L6": (45.0, 46.0)}
MARKS = ["A", "B"]


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty runs folder, and an empty results folder."""
    monkeypatch.setenv("HARNESS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HARNESS_RESULTS", str(tmp_path / "results"))
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    return tmp_path / "runs"


def lost(missed: float) -> LostAP:
    return LostAP(**(dict.fromkeys(KINDS, 1.0) | {"missed": missed}))


def parts(ap50: float, names: tuple[str, ...] = ("circle", "star")) -> LostParts:
    """The smaller the better; the second class is worse by 10, and misses more."""
    classes = LostClasses(
        ids=tuple(range(1, len(names) + 1)),
        names=names,
        boxes=(700, *(1,) * (len(names) - 1)),
        AP50=(ap50, *(ap50 / 2,) * (len(names) - 1)),
        lost={kind: (1.0,) * len(names) for kind in KINDS}
        | {"missed": tuple(50 - ap50 / (i + 2) for i in range(len(names)))},
    )
    sizes = {name: Part(boxes=100, AP50=ap50 - i, lost=lost(50 - ap50)) for i, name in enumerate(SIZES[:2])}
    return LostParts(sizes=sizes, objects={"2-4": Part(boxes=800, AP50=ap50, lost=lost(4.0))}, classes=classes)


def finished(runs: Path, ref: str, seed: int, ap50: float, **changes: object) -> Record:
    """A finished run of format 2."""
    record = record_of(job_of(ref, seed))
    metrics = record.metrics | {"AP": 20.0, "AP50": ap50, "AP75": 20.0}
    record = replace(record, format=2, metrics=metrics, lost_ap=lost(50 - ap50), **changes)
    record = replace(record, sha256=content_hash(record))
    write_json(RunDir(runs / record.train_id).record(record.eval_id), record)
    return record


def two_sides(runs: Path, names: tuple[str, ...] = ("circle", "star")) -> None:
    for ref, values in AP50.items():
        for seed, value in enumerate(values):
            finished(runs, ref, seed, value, lost_parts=parts(value, names))


def by_key(found: tuple[ErrorsOf, ...]) -> Mapping[tuple[str, str], ErrorsOf]:
    return {(part.group, part.name): part for part in found}


def test_errors_are_means_of_the_seeds_and_differences_are_paired_by_seed(runs: Path) -> None:
    two_sides(runs)
    view = compare(SIDES, "tiny", None)
    found = by_key(view.errors.parts)
    assert list(found) == [
        ("all", "all"),
        ("size", "small"),
        ("size", "medium"),
        ("objects", "2-4"),
        ("class", "circle"),
        ("class", "star"),
    ]
    whole = found["all", "all"]
    assert [side and side["AP50"] for side in whole.sides] == [41.0, 45.5]
    assert [side and side["missed"] for side in whole.sides] == [9.0, 4.5]
    (change,) = whole.differences
    assert change is not None
    assert change["missed"].value == pytest.approx(-4.5)
    assert change["missed"].seeds == pytest.approx(paired([5.0, 4.0], [10.0, 8.0]).half_width())
    assert found["size", "medium"].boxes == 100
    assert [side and side["AP50"] for side in found["size", "medium"].sides] == [40.0, 44.5]
    assert found["class", "star"].id == 2
    assert view.errors.unknown == (None, None)
    assert view.errors.from_detections == (0, 0)
    data = json.loads(json.dumps(as_data(view)))
    assert data["errors"]["parts"][1]["differences"][0]["AP50"]["value"] == pytest.approx(4.5)


def test_errors_in_text_show_kinds_sizes_objects_and_classes_side_by_side(runs: Path) -> None:
    two_sides(runs)
    means, sizes, objects, classes, what = errors_text(compare(SIDES, "tiny", None), MARKS)
    assert means.splitlines()[2].split() == ["AP50", "41.0", "45.5"]
    assert means.splitlines()[-1].split() == ["lost:", "missed", "9.0", "4.5"]
    assert sizes.splitlines()[0].split() == ["B", "-", "A,", "by", "size", "of", "object", "all", "small", "medium"]
    assert sizes.splitlines()[2].split() == ["boxes", "100", "100"]
    assert sizes.splitlines()[4].split() == ["AP50", "of", "B", "45.5", "45.5", "44.5"]
    assert sizes.splitlines()[-1].split()[:5] == ["lost:", "missed", "-4.5", "±", "6.4"]
    assert objects.splitlines()[0].split() == ["B", "-", "A,", "by", "objects", "in", "the", "image", "2-4"]
    assert objects.splitlines()[-1].split() == ["lost:", "missed", "+0.0", "±", "0.0"]
    assert [line.split()[0] for line in classes.splitlines()[2:]] == ["circle", "star"]
    assert classes.splitlines()[2].split()[1:4] == ["700", "41.0", "45.5"]
    assert classes.splitlines()[2].endswith("missed -2.2")
    assert "do not add up" in what


def test_errors_in_text_keep_to_80_columns_whatever_classes_are_called(runs: Path) -> None:
    two_sides(runs, ("\x1b[31mred\n" + "n" * 60, "\u202eevil", *(f"class {i}" for i in range(7))))
    text = comparison_text(compare(SIDES, "tiny", None))
    blocks = errors_text(compare(SIDES, "tiny", None), MARKS, 80)
    assert max(len(line) for block in blocks for line in block.splitlines()) <= 80
    assert "5 of 9 classes" in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert r"\x1b[31mred\nnnnn..." in text


def test_errors_of_older_records_are_shown_as_far_as_they_go_with_what_gives_the_rest(runs: Path) -> None:
    for ref, values in AP50.items():
        finished(runs, ref, 0, values[0])
    view = compare(SIDES, "tiny", None)
    assert [part.group for part in view.errors.parts] == ["all"]
    why = "an earlier version wrote the record, and its detections are not here"
    assert view.errors.unknown == (why, why)
    text = comparison_text(view)
    assert f"Not all is known of the errors of A and B: {why}." in " ".join(text.split())
    assert "  harness run table2/L6 --profile tiny --seeds 1" in text


def test_errors_of_the_committed_records_are_known_or_what_gives_them_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_RESULTS", str(PROJECT / "results"))
    view = compare(SIDES, "tiny", None)
    text = comparison_text(view)
    assert ("Not all is known of the errors" in text) == any(view.errors.unknown)
    assert ("lost: missed" in text) == any(part.group == "all" for part in view.errors.parts)


def test_errors_of_rows_that_were_never_run_are_not_spoken_of(runs: Path) -> None:
    view = compare(SIDES, "tiny", None)
    assert view.errors.parts == ()
    assert view.errors.unknown == (None, None)
    assert "errors" not in comparison_text(view)


@pytest.fixture
def older(runs: Path, tmp_path: Path) -> tuple[Path, list[RunDir], list[LostParts]]:
    """A COCO root, two runs on it with detections and records of format 1, and what the errors of each are."""
    root = tmp_path / "root"
    root.mkdir()
    index, every = random_scene(root, IMAGES, 0)
    sha256 = annotations_sha256(root, "val")
    source = AnnotatedFolder(
        train_split="val", test_split="val", num_images=None, train_sha256=sha256, test_sha256=sha256
    )
    made, expected = [], []
    for seed in (0, 1):
        kept = np.arange(len(every)) % 5 != seed
        found = Detections(every.image_ids[kept], every.category_ids[kept], every.boxes[kept], every.scores[kept])
        job = job_of("table2/L6", seed)
        record = record_of(replace(job, train=replace(job.train, data=source)))
        split = fingerprint(source, root, "test", index)
        record = replace(record, test_split=split, metrics=record.metrics | coco_metrics(index, found))
        run = RunDir(runs / record.train_id)
        write_json(run.record(record.eval_id), record)
        write_detections(run.detections(record.eval_id), found)
        made.append(run)
        expected.append(errors_of(index, found)[1])
    return root, made, expected


def test_errors_of_an_older_record_are_found_from_its_detections(
    older: tuple[Path, list[RunDir], list[LostParts]],
) -> None:
    root, made, expected = older
    view = compare([str(run.root) for run in made], "tiny", root)
    small = by_key(view.errors.parts)["size", "small"]
    assert [side and side["AP50"] for side in small.sides] == [one.sizes["small"].AP50 for one in expected]
    assert view.errors.from_detections == (1, 1)
    assert "from the detections beside the run (records): A (1), B (1)." in " ".join(comparison_text(view).split())


def test_errors_of_detections_that_are_not_the_record_s_are_not_believed(
    older: tuple[Path, list[RunDir], list[LostParts]],
) -> None:
    root, made, _ = older
    for run in made:
        (record,) = run.root.glob("evals/*/record.json")
        content = read_record(record)
        write_json(record, replace(content, metrics=content.metrics | {"AP50": 99.0}))
    view = compare([str(run.root) for run in made], "tiny", root)
    why = "the detections beside the run are of another evaluation than the record"
    assert view.errors.unknown == (why, why)
    assert view.errors.parts == ()


def test_errors_of_an_older_record_are_unknown_without_its_data(
    older: tuple[Path, list[RunDir], list[LostParts]], tmp_path: Path
) -> None:
    root, made, _ = older
    names = [str(run.root) for run in made]
    assert "its data set is not here" in (compare(names, "tiny", tmp_path / "nowhere").errors.unknown[0] or "")
    assert "A COCO root" in (compare(names, "tiny", None).errors.unknown[0] or "")
    annotations = annotation_file(root, "val")
    content = annotations.read_text()
    annotations.write_text(content + " ")
    assert "are not those that the run was planned with" in (compare(names, "tiny", root).errors.unknown[0] or "")
    annotations.write_text(content)
    (detections,) = made[0].root.glob("evals/*/detections.json.gz")
    detections.write_bytes(b"no gzip")
    assert "detections.json.gz" in (compare(names, "tiny", root).errors.unknown[0] or "")
