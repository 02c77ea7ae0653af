"""The whole line through the command, at a scale of seconds: run, table, check, collect, eval, score, detect."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import harness
from detector.runs.status import Status
from detector.storage.reading import read_json
from support.micro import micro_job
from support.workplace import Workplace, make_workplace
from tests.command import error
from tests.examples import run_examples


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """Table 3 trained with one seed, by the command."""
    place = make_workplace(tmp_path_factory.mktemp("line"), iterations=8)
    text = place.harness("run", "table3", "--profile", "tiny")
    assert "3 runs, 0 done, 3 to do" in text
    assert "Done. Next: harness table table3 --profile tiny" in text
    return place


def test_run_again_trains_nothing(done: Workplace) -> None:
    before = done.run_dir().final.stat().st_mtime_ns
    text = done.harness("run", "table3", "--profile", "tiny")
    assert "3 runs, 3 done, 0 to do" in text
    assert done.run_dir().final.stat().st_mtime_ns == before
    assert "1 done, 0 to do" in done.harness("run", "table1/hp-e_hn-3.5", "--profile", "tiny")  # the same training


def test_run_leaves_the_files_that_are_promised(done: Workplace) -> None:
    run = done.run_dir()
    assert {path.name for path in run.root.iterdir()} >= {
        *("job.json", "environment.json", "status.json", "metrics.jsonl", "log.txt"),
        *("checkpoints", "evals", "tensorboard"),
    }
    assert read_json(run.status, Status).phase == "done"
    assert list(run.tensorboard.glob("events.out.tfevents.*"))


def test_table_shows_the_numbers_beside_the_papers(done: Workplace) -> None:
    text = done.harness("table", "table3", "--profile", "tiny")
    assert "12.9" in text
    assert "another scale" in text
    data = json.loads(done.harness("table", "all", "--profile", "tiny", "--format", "json"))
    assert [table["id"] for table in data] == ["table1", "table2", "table3", "table4"]
    rows = {row["ref"]: row for table in data for row in table["rows"]}
    record = done.run_dir().read_record(micro_job(done.root / "experiments").id)
    assert record is not None
    for ref in ("table1/hp-e_hn-3.5", "table2/L6", "table3/dr"):
        assert rows[ref]["ours"]["AP"]["mean"] == record.metrics["AP"]
        assert rows[ref]["seeds"] == [0]
    assert rows["table2/focal"]["status"] == "pending"
    assert len(rows) == 34


def test_check_says_what_one_seed_cannot_decide(done: Workplace) -> None:
    text = done.harness("check", "table3", "--profile", "tiny")
    assert "NOT DECIDABLE HERE  dr-beats-neg-only" in text
    data = json.loads(done.harness("check", "all", "--profile", "tiny", "--format", "json"))
    outcomes = {claim["id"]: claim["outcome"] for claim in data["claims"]}
    assert outcomes["dr-beats-neg-only"] == "not decidable here"
    assert len(outcomes) == len({claim["id"] for claim in data["claims"]})


def test_collect_copies_records_once_and_never_overwrites(done: Workplace) -> None:
    assert "3 new records" in done.harness("collect")
    assert "0 new records" in done.harness("collect")
    (path,) = (done.root / "results" / "records" / "tiny").glob(f"{micro_job(done.root / 'experiments').id}.json")
    record = json.loads(path.read_text())
    record["metrics"]["AP"] = 99.0
    path.write_text(json.dumps(record))
    assert "conflict" in done.harness("collect", code=1)
    assert json.loads(path.read_text())["metrics"]["AP"] == 99.0
    path.unlink()


@pytest.mark.slow
def test_python_trains_what_is_missing_and_reads_its_curves(
    done: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    place = Workplace(Path(shutil.copytree(done.root, tmp_path / "place")))
    for name in ("HARNESS_EXPERIMENTS", "HARNESS_RUNS", "HARNESS_RESULTS"):
        monkeypatch.setenv(name, place.environment[name])
    assert run_examples(harness.run) > 1
    assert run_examples(harness.curves) > 1
    result = harness.run("table3/dr", profile="tiny", seeds=2)
    assert repr(result) == "table3/dr, profile tiny: 2 runs, 1 done before, 1 trained"
    assert "table3/dr, profile tiny: 2 runs, 1 done, 1 to do." in capsys.readouterr().err
    assert harness.plan("table3/dr", profile="tiny", seeds=2)["done"].all()
    assert harness.table("table3", profile="tiny").loc["table3/dr", "n"] == 2
    curves = harness.curves("table3/dr", profile="tiny", seeds=2)
    assert set(curves["seed"]) == {0, 1}
    assert curves.groupby("seed")["iteration"].max().tolist() == [8, 8]


def printed_first(text: str) -> Any:
    """The JSON at the beginning; what was said of it follows."""
    return json.JSONDecoder().raw_decode(text)[0]


@pytest.mark.slow
def test_eval_with_other_test_settings_keeps_a_record_of_its_own(done: Workplace) -> None:
    arguments = ("eval", "table2/L6", "--profile", "tiny", "--set", "test.score_threshold=0.9", "--json")
    metrics = printed_first(done.harness(*arguments))
    assert metrics["job"]["test"]["score_threshold"] == 0.9
    assert "overridden by --set" in metrics["notes"][0]
    assert len(list((done.run_dir().root / "evals").iterdir())) == 2
    assert "eval takes other test settings only" in done.harness(
        "eval", "table2/L6", "--profile", "tiny", "--set", "seed=1", code=2
    )
    # It fills no cell of the table.
    rows = json.loads(done.harness("table", "table3", "--profile", "tiny", "--format", "json"))[0]["rows"]
    assert all(row["n"] == 1 for row in rows)


@pytest.mark.slow
def test_eval_of_the_runs_own_weights_as_a_file_gives_the_records_metrics(done: Workplace, tmp_path: Path) -> None:
    data = printed_first(done.harness("eval", "table2/L6", "--profile", "tiny", "--json"))
    root = next((done.root / "runs" / "data").iterdir())
    found = done.harness(
        *("eval", "--recipe", "dr-r50-1x", "--weights", str(done.run_dir().final), "--profile", "tiny"),
        *("--data", str(root), "--out", str(tmp_path / "out")),
    )
    evaluation = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert {name: data["metrics"][name] for name in evaluation["metrics"]} == evaluation["metrics"]
    assert "fills no table's cell" in found


@pytest.mark.slow
def test_a_batch_size_of_its_own_trains_the_same_epochs_and_fills_no_cell(done: Workplace) -> None:
    text = done.harness("run", "table3/dr", "--profile", "tiny", "--batch-size", "2")
    assert "With --batch-size 2 these runs are not the paper's" in text
    jobs = [json.loads(path.read_text()) for path in (done.root / "runs").glob("*/job.json")]
    (job,) = [job for job in jobs if job["batch"]["images"] == 2]
    assert (job["schedule"]["iterations"], job["optimizer"]["lr"]) == (16, pytest.approx(0.05))
    data = json.loads(done.harness("table", "table3", "--profile", "tiny", "--format", "json"))
    assert {row["ref"]: row["seeds"] for row in data[0]["rows"]}["table3/dr"] == [0]


@pytest.mark.slow
def test_a_wrong_first_batch_stops_the_run_before_its_first_step_and_says_why(tmp_path: Path) -> None:
    place = make_workplace(tmp_path, iterations=8)
    path = place.root / "experiments" / "profiles" / "tiny.yaml"
    # As if this data were other data: so a run sees boxes that are read or scaled wrongly.
    path.write_text(path.read_text() + "anchor_ranges: {positives: [1000, 2000], borderline: [0, 5000]}\n")
    text = place.harness("run", "table2/L6", "--profile", "tiny", code=1)
    assert "anchors per image are positive; on this data 1000 to 2000 are." in text
    assert "Usual causes: boxes read as (x, y, w, h) instead of corners" in text
    assert place.run_dir().metrics.read_text() == ""
    # The ranges do not apply to what --set changes: this one fails later, and is named with its reason and log.
    text = place.harness("run", "table2/focal", "--profile", "tiny", "--set", "optimizer.lr=1e6", code=1)
    assert "The loss is not finite" in text
    assert "log.txt" in text


def test_score_gives_the_metrics_of_the_record(done: Workplace) -> None:
    job = micro_job(done.root / "experiments")
    detections = done.run_dir().detections(job.id)
    data = next((done.root / "runs" / "data").iterdir())
    metrics = json.loads(done.harness("score", str(detections), "--data", str(data), "--json"))
    record = done.run_dir().read_record(job.id)
    assert record is not None
    assert metrics == {name: record.metrics[name] for name in metrics}


def test_detect_draws_and_lists_boxes(done: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = sorted((next((done.root / "runs" / "data").iterdir()) / "val2017").iterdir())[0]
    out = tmp_path / "drawn"
    text = done.harness(
        "detect", str(image), "--out", str(out), "--run", "table2/L6", "--profile", "tiny", "--min-score", "0"
    )
    assert (out / f"{image.stem}.png").exists()
    found = json.loads((out / "detections.json").read_text())[str(image)]
    assert f"{len(found)} objects" in text
    assert all(entry["name"] in ("circle", "square", "triangle") for entry in found)
    for name in ("HARNESS_EXPERIMENTS", "HARNESS_RUNS", "HARNESS_RESULTS"):
        monkeypatch.setenv(name, done.environment[name])
    message = error("detect", __file__, "--out", str(out), "--run", "table2/L6", "--profile", "tiny")
    assert "is not an image" in message
