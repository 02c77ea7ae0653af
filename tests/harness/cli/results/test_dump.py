"""``harness dump``: what it writes for each form, and what it refuses."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import harness
from tests.command import error, invoke
from tests.made_records import commit, made_record

pytestmark = pytest.mark.usefixtures("empty_folders")


@pytest.fixture
def records(tmp_path: Path) -> Path:
    for ref, seed in (("table2/L6", 0), ("table2/L6", 1), ("table2/focal", 0)):
        commit(
            made_record(ref, seed, metrics=made_record(ref, seed).metrics | {"AP": 20.0 + seed}), tmp_path / "results"
        )
    return tmp_path


def dumped(place: Path, *words: str) -> list[dict[str, str]]:
    out = place / "out.csv"
    invoke("dump", *words, "--profile", "tiny", "--to", "csv", "--out", str(out), "--force")
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_kind_of_line_has_the_columns_of_its_frame(records: Path) -> None:
    assert list(dumped(records, "table2")[0]) == list(harness.records("table2", "tiny").columns)
    assert list(dumped(records, "--what", "claims")[0]) == list(harness.claims(profile="tiny").columns)
    assert list(dumped(records, "table2", "--what", "curves")[0]) == list(harness.curves("table2", "tiny").columns)
    cells = dumped(records, "table2", "--what", "cells")
    assert list(cells[0]) == ["row", *harness.table("table2", "tiny").columns]
    assert [line["AP"] for line in cells if line["row"] == "table2/L6"] == ["20.5"]
    jobs = dumped(records, "table2/L6", "--what", "jobs", "--seeds", "2")
    assert list(jobs[0]) == list(harness.plan("table2", "tiny").columns)
    assert [line["seed"] for line in jobs] == ["0", "1"]


def test_records_are_whole_and_numbers_keep_their_kind(records: Path) -> None:
    lines = dumped(records, "table2/L6")
    assert [line["seed"] for line in lines] == ["0", "1"]
    assert lines[0]["job.train.schedule.iterations"] == "400"
    assert lines[0]["train_seconds"] == "40.0"
    assert lines[0]["loss_package" if "loss_package" in lines[0] else "job.train.loss_package"] == ""
    assert lines[0]["curves.values.lr"] == "[0.01, null]"
    assert len(dumped(records)) == 3


def test_the_same_records_give_the_same_bytes_wherever_they_are(records: Path) -> None:
    dumped(records)
    before = (records / "out.csv").read_bytes()
    for path in sorted((records / "results" / "records" / "tiny").glob("*.json"), reverse=True):
        record = harness.records().set_index("eval_id").loc[path.stem]
        target = records / "runs" / record["train_id"] / "evals" / path.stem / "record.json"
        target.parent.mkdir(parents=True)
        path.rename(target)
    dumped(records)
    assert (records / "out.csv").read_bytes() == before
    assert error("dump", "-p", "tiny", "--to", "csv", "--source", "committed", "--out", str(records / "x.csv"))


def test_where_nothing_is_recorded_it_says_at_which_profile_something_is(records: Path) -> None:
    words = ("dump", "table2", "--to", "csv", "--out", str(records / "new.csv"))
    message = error(*words)
    assert (
        "No finished record of table2 at profile paper. There are records at: tiny (3). Add --profile tiny." in message
    )
    assert "Make one: harness run table2/L8 --profile tiny" in error(
        "dump", "table2/L8", "-p", "tiny", *words[2:], "--source", "local"
    )
    assert not (records / "new.csv").exists()


def test_options_that_do_not_go_together_are_refused(records: Path) -> None:
    out = ("--out", str(records / "new"))
    assert "--seeds goes with --what jobs" in error("dump", "--to", "csv", *out, "--seeds", "2")
    assert "--what goes with csv and parquet" in error("dump", "--to", "tensorboard", *out, "--what", "claims")
    assert "--force goes with a file" in error("dump", "--to", "tensorboard", *out, "--force")
    assert "does not fit the name" in error("dump", "--to", "parquet", "--out", str(records / "a.csv"))


def test_curves_of_runs_that_were_made_elsewhere_come_from_their_records(records: Path) -> None:
    frame = harness.curves("table2", "tiny")
    assert frame["points"].unique().tolist() == ["thinned"]
    assert frame[["row", "seed", "iteration"]].values.tolist() == [
        ["table2/focal", 0, 1],
        ["table2/focal", 0, 400],
        ["table2/L6", 0, 1],
        ["table2/L6", 0, 400],
        ["table2/L6", 1, 1],
        ["table2/L6", 1, 400],
    ]
    assert frame["loss"].tolist()[:2] == [2.0, 1.25]
    assert len(harness.curves("table2/L6", "tiny", seeds=2)) == 4
    assert len(harness.curves("table2/L6", "tiny", source="committed")) == 4


def test_tensorboard_says_how_to_see_it(records: Path) -> None:
    out = records / "board"
    result = invoke("dump", "table2", "-p", "tiny", "--to", "tensorboard", "--out", str(out))
    assert f"3 trainings. See them: tensorboard --logdir {out}" in result.output
    assert len(list(out.rglob("events.out.tfevents.*"))) == 4
