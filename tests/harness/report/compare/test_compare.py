"""``harness compare`` on the committed records, and on runs that have matches, curves and inputs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from detector.evaluation.detections import Detections
from detector.evaluation.matches import write_matches
from detector.evaluation.scoring import coco_metrics_and_matches
from detector.runs.findings import Curves, LostAP
from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.runs.provenance import FileDigest, Inputs
from detector.runs.record import Record, content_hash
from detector.storage.files import write_json
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve
from harness.report.compare.comparison import as_data, compare
from harness.report.compare.curves import sparkline
from harness.report.compare.text import comparison_text
from harness.verdicts.estimates import paired
from support.records import record_of, results_of_first_format
from tests.command import error, invoke
from tests.conftest import PROJECT
from tests.detector.evaluation.test_reweighted import IMAGES, random_scene

TINY = ("--profile", "tiny")


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty runs folder; results are the committed records."""
    monkeypatch.setenv("HARNESS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HARNESS_RESULTS", str(PROJECT / "results"))
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    return tmp_path / "runs"


@pytest.fixture
def alone(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty results folder too."""
    monkeypatch.setenv("HARNESS_RESULTS", str(tmp_path / "results"))
    return runs


def job_of(ref: str, seed: int) -> EvalJob:
    registry = Registry()
    return eval_job(resolve(registry, ref, registry.profile("tiny")), seed)


def finished(runs: Path, ref: str, seed: int, scenes: Path, *, drop: int, **changes: object) -> Record:
    """A finished run: every ``drop``-th detection of one scene is missing. With its matches beside it."""
    folder = scenes / f"{ref}-{seed}"
    folder.mkdir(parents=True)
    index, every = random_scene(folder, IMAGES, 0)
    kept = np.arange(len(every)) % drop != seed
    found = Detections(every.image_ids[kept], every.category_ids[kept], every.boxes[kept], every.scores[kept])
    metrics, matches = coco_metrics_and_matches(index, found)
    record = replace(record_of(job_of(ref, seed)), metrics=metrics, **changes)
    if record.format > 1:
        record = replace(record, sha256=content_hash(record))
    run = RunDir(runs / record.train_id)
    write_json(run.record(record.eval_id), record)
    write_matches(run.matches(record.eval_id), matches)
    return record


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The committed records as the first format had them."""
    results = results_of_first_format(PROJECT / "results", tmp_path / "first")
    monkeypatch.setenv("HARNESS_RESULTS", str(results))
    return results


def test_compare_of_the_first_formats_records_pairs_seeds_and_says_how_to_know_the_images_noise(first: Path) -> None:
    view = compare(["table2/L6", "table2/focal"], "tiny", None)
    a, b = [view.sides[i].metrics["AP"].mean for i in (0, 1)]
    (contrast,) = view.contrasts
    difference = contrast.differences["AP"]
    assert difference.value == pytest.approx(b - a)
    files = [json.loads(path.read_text()) for path in (first / "records" / "tiny").glob("*.json")]
    ids = {job_of(ref, seed).id for ref in ("table2/L6", "table2/focal") for seed in (0, 1, 2)}
    ap = {content["train_id"]: content["metrics"]["AP"] for content in files if content["eval_id"] in ids}
    values = [[ap[train_id] for train_id in side.trainings] for side in view.sides]
    assert difference.seeds == pytest.approx(paired(values[1], values[0]).half_width())
    assert difference.images is None
    text = comparison_text(view)
    assert max(map(len, text.splitlines())) <= 80
    assert "paired by seed, 3 seeds; images: unknown" in text
    assert "unknown for A and B: no matches per image beside the run (3 of 3 seeds)." in " ".join(text.split())
    assert "  harness run table2/focal --profile tiny --seeds 3" in text
    assert "Curves are unknown for A and B" in text
    settings = {row.name: row.values for row in view.settings}
    assert settings["loss.name"] == ("dr", "focal")
    assert settings["matching.background_iou"] == ("0.5", "0.4")
    assert "seed" not in settings


def test_compare_has_the_images_noise_of_runs_with_matches(alone: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        finished(alone, "table2/L6", seed, tmp_path / "scenes", drop=9)
        finished(alone, "table2/focal", seed, tmp_path / "scenes", drop=3)
    view = compare(["table2/L6", "table2/focal"], "tiny", None)
    difference = view.contrasts[0].differences["AP"]
    assert difference.value < -1
    assert 0 < difference.images < 1.96 * np.hypot(*(side.metrics["AP"].images for side in view.sides))
    text = comparison_text(view)
    assert "200 resamples, the same for both" in text
    assert f"test set's images: A {view.sides[0].metrics['AP'].images:.1f}, B " in text
    assert view.sides[0].images_unknown is None


def test_compare_takes_both_noises_over_the_seeds_that_both_have(alone: Path, tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        finished(alone, "table2/L6", seed, tmp_path / "scenes", drop=9)
    for seed in (1, 2):
        finished(alone, "table2/focal", seed, tmp_path / "scenes", drop=9)  # the same detections, seed by seed
    (contrast,) = compare(["table2/L6", "table2/focal"], "tiny", None).contrasts
    difference = contrast.differences["AP"]
    assert contrast.seeds_by == "paired by seed, 2 seeds"
    assert (difference.value, difference.seeds, difference.images) == (0, 0, 0)


def test_compare_of_one_seed_is_with_that_seed_of_the_other(alone: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        finished(alone, "table2/L6", seed, tmp_path / "scenes", drop=9)
    finished(alone, "table2/focal", 1, tmp_path / "scenes", drop=9)  # the same detections as seed 1 of the first
    (contrast,) = compare(["table2/L6", "table2/focal"], "tiny", None).contrasts
    assert contrast.seeds_by == "unknown, fewer than two seeds of table2/focal; the difference is of seed 1 alone"
    difference = contrast.differences["AP"]
    assert (difference.value, difference.seeds, difference.images) == (0, None, 0)


def test_compare_leaves_out_matches_that_are_of_another_evaluation(alone: Path, tmp_path: Path) -> None:
    finished(alone, "table2/L6", 0, tmp_path / "scenes", drop=9)
    record = finished(alone, "table2/focal", 0, tmp_path / "scenes", drop=3)
    run = RunDir(alone / record.train_id)
    write_json(run.record(record.eval_id), replace(record, metrics=record.metrics | {"AP": 1.0}))
    view = compare(["table2/L6", "table2/focal"], "tiny", None)
    assert "of another evaluation than the record" in (view.sides[1].images_unknown or "")
    assert view.contrasts[0].differences["AP"].images is None
    assert view.contrasts[0].seeds_by == (
        "unknown, fewer than two seeds of table2/L6 and table2/focal; the difference is of seed 0 alone"
    )


def test_compare_shows_inputs_curves_and_lost_ap_that_records_have(alone: Path, tmp_path: Path) -> None:
    losses = {"table2/L6": 2.0, "table2/focal": 1.0}
    for ref, start in losses.items():
        digest = FileDigest(name="R-50.pkl", sha256=hashlib.sha256(ref.encode()).hexdigest())
        curve = tuple(start / i for i in range(1, 9))
        finished(
            alone,
            ref,
            0,
            tmp_path / "scenes",
            drop=9,
            format=2,
            inputs=Inputs(weights=digest),
            curves=Curves(iterations=tuple(range(10, 90, 10)), values={"classification": curve}),
            lost_ap=LostAP(
                classification=start, localisation=0.0, both=0.0, duplicate=0.0, background=0.0, missed=9.87
            ),
        )
    view = compare(list(losses), "tiny", None)
    assert [row.name for row in view.inputs] == ["initial weights"]
    text = comparison_text(view)
    assert "at iterations 10, 30, 40, 60, 80" in text or "at iterations 10, 30, 50, 60, 80" in text
    assert "2.000" in text
    assert "█" in text
    assert ["lost:", "missed", "9.9", "9.9"] in [line.split() for line in text.splitlines()]
    assert as_data(view)["curves"][0]["points"]["10"] == 2.0


def test_compare_reads_curves_of_the_runs_folder(alone: Path, tmp_path: Path) -> None:
    for ref in ("table2/L6", "table2/focal"):
        record = finished(alone, ref, 0, tmp_path / "scenes", drop=9)
        lines = [json.dumps({"iteration": i, "classification": 2 / i, "bbox_regression": 1.0}) for i in (1, 2, 4)]
        RunDir(alone / record.train_id).metrics.write_text("\n".join(lines) + "\n")
    view = compare(["table2/L6", "table2/focal"], "tiny", None)
    assert {curve.curve: dict(curve.points) for curve in view.curves}["classification"] == {1: 2.0, 2: 1.0, 4: 0.5}
    assert "at iterations 1, 2, 4" in comparison_text(view)


def test_compare_takes_folders_files_ids_recipes_and_overrides(alone: Path, tmp_path: Path) -> None:
    record = finished(alone, "table2/L6", 0, tmp_path / "scenes", drop=9)
    run = RunDir(alone / record.train_id)
    names = [
        "table2/L6",
        str(run.root),
        str(run.record(record.eval_id)),
        record.train_id[:8],
        "dr-r50-1x",
        "table2/L6@optimizer.lr=0.05@batch.images=8",
    ]
    view = compare(names, "tiny", None)
    assert [side.trainings for side in view.sides] == [(record.train_id,)] * 5 + [()]
    assert [contrast.seeds_by for contrast in view.contrasts] == ["none, these are the same trainings"] * 4
    assert {row.name: row.values for row in view.settings}["optimizer.lr"] == (*["0.1"] * 5, "0.05")
    assert view.sides[5].command == (
        "harness run table2/L6 --profile tiny --set optimizer.lr=0.05 --set batch.images=8"
    )
    assert "not run; to run it: harness run" in " ".join(comparison_text(view).split())


def test_compare_of_rows_that_were_never_run_shows_their_settings(alone: Path) -> None:
    view = compare(["table2/L6", "table2/hinge"], "tiny", None)
    assert view.contrasts == ()
    assert [row.name for row in view.settings] == ["loss.surrogate.name", "loss.surrogate.L"]
    assert "A  table2/L6: not run" in comparison_text(view)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["table2/L6", "nothing"], "'nothing' is no row, recipe, run or record. A row: table2/L6. A recipe: "),
        (["table2/L6"], "compare takes two things or more; got 1. A row: "),
        (["table2/L6", "table2"], "'table2' is a whole table. Name a row of it, such as table2/focal."),
        (["table2/L6", "table2/L7"], "Unknown row 'L7' of table2. Known: focal, "),
        (["table2/L6", "0123456789abcdef"], "No finished training's id begins with '0123456789abcdef'."),
        (["table2/L6", "table2/L6@optimizer.lr"], "--set takes PATH=VALUE"),
        (["table2/L6", "table2/L6@optimizer.speed=2"], "--set: unknown setting 'optimizer.speed'."),
        (["table2/L6", "table4/fcos-resnet-101-fpn"], "is cited from another paper"),
        (["table2/L6", "docs"], "docs has no finished evaluation (evals/*/record.json)."),
    ],
)
def test_compare_refuses_what_it_cannot_compare(
    names: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT)
    assert message in error("compare", *names, *TINY)


def test_compare_as_json_has_the_same_numbers() -> None:
    data = json.loads(invoke("compare", "table2/L6", "table2/focal", *TINY, "--json").stdout)
    assert data["contrasts"][0]["differences"]["AP"]["value"] == pytest.approx(
        data["sides"][1]["metrics"]["AP"]["mean"] - data["sides"][0]["metrics"]["AP"]["mean"]
    )
    assert {(item["side"], item["curve"]) for item in data["curves"]} == {
        (side, curve) for side in ("table2/L6", "table2/focal") for curve in ("classification", "bbox_regression")
    }


def test_sparkline_goes_from_the_lowest_to_the_highest_in_40_blocks() -> None:
    assert sparkline({10: 3.0, 0: 1.0, 5: 2.0}) == "▁▅█"
    assert sparkline({i: float(i) for i in range(400)}) == "".join(sorted(sparkline({i: float(i) for i in range(400)})))
    assert len(sparkline({i: float(i) for i in range(400)})) == 40
    assert sparkline({0: 1.0, 1: 1.0}) == "▁▁"
    assert sparkline({}) == ""
