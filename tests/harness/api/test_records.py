"""``harness.records`` on the committed records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import harness
from detector.errors import UsageError
from support.records import first_format
from tests.conftest import PROJECT
from tests.harness.report.compare.test_errors import finished, parts

RECORDS = PROJECT / "results" / "records"


@pytest.fixture(autouse=True)
def committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HARNESS_RESULTS", str(PROJECT / "results"))
    monkeypatch.delenv("HARNESS_DATA", raising=False)


def test_each_record_is_one_line_with_its_job_as_columns() -> None:
    frame = harness.records()
    files = {path.stem: json.loads(path.read_text()) for path in RECORDS.glob("*/*.json")}
    assert len(frame) == len(files)
    assert set(frame["eval_id"]) == set(files)
    line = frame[frame["rows"].map(lambda rows: "table2/L6" in rows)].iloc[0]
    record = files[line["eval_id"]]
    assert line["AP"] == record["metrics"]["AP"]
    assert line["job.train.optimizer.lr"] == record["job"]["train"]["optimizer"]["lr"]
    assert line["job.train.loss.surrogate.L"] == 6
    assert line["job.train.model.fpn_levels"] == (3, 5)  # to group by
    assert line["environment.torch"] == record["environment"]["torch"]
    assert line["commit"] == record["code"]["commit"]
    assert line["finished"].isoformat() == record["finished"]
    assert str(frame["finished"].dt.tz) == "UTC"
    assert str(frame["APL"].dtype) == "float64"


def test_rows_of_a_record_are_all_that_it_fills() -> None:
    frame = harness.records("table3/dr", profile="tiny")
    assert frame["seed"].tolist() == [0, 1, 2]
    assert {"table1/hp-e_hn-3.5", "table2/L6", "table3/dr"} <= set(frame["rows"].iloc[0])


def test_a_target_chooses_records_and_none_takes_those_of_no_row() -> None:
    every, tables = harness.records(), harness.records("all")
    assert 0 < len(tables) < len(every)
    assert set(harness.records(["table2", "table3"])["eval_id"]) < set(tables["eval_id"])


def test_records_stand_in_the_order_of_the_rows_and_of_their_seeds() -> None:
    frame = harness.records(["table3", "table2/focal"], profile="tiny")
    first = [next(row for row in rows if row.startswith(("table3/", "table2/focal"))) for rows in frame["rows"]]
    assert list(dict.fromkeys(first)) == ["table3/all", "table3/neg-only", "table3/dr", "table2/focal"]
    assert frame["seed"].tolist() == [0, 1, 2] * 4


def test_nothing_recorded_is_an_empty_frame_and_a_wrong_name_is_an_error(tmp_path: Path) -> None:
    empty = harness.records("table2", profile="paper")
    assert len(empty) == 0
    assert {"eval_id", "rows", "seed", "AP"} <= set(empty.columns)
    with pytest.raises(UsageError, match="Unknown profile 'big'"):
        harness.records(profile="big")
    with pytest.raises(UsageError, match="Unknown row 'L7'"):
        harness.records("table2/L7")


def test_a_record_with_other_settings_fills_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from msgspec.structs import replace

    from detector.runs.record import Record
    from detector.storage.files import write_json
    from detector.storage.reading import read_json

    record = first_format(read_json(sorted(RECORDS.glob("tiny/*.json"))[0], Record))
    optimizer = replace(record.job.train.optimizer, lr=0.123)
    job = replace(record.job, train=replace(record.job.train, optimizer=optimizer))
    write_json(
        tmp_path / "results" / "records" / "tiny" / f"{job.id}.json",
        replace(record, job=job, eval_id=job.id, train_id=job.train.id),
    )
    monkeypatch.setenv("HARNESS_RESULTS", str(tmp_path / "results"))
    frame = harness.records()
    assert frame["rows"].tolist() == [()]
    assert frame["job.train.optimizer.lr"].tolist() == [0.123]
    assert len(harness.records("all")) == 0


def test_ap_lost_by_kind_of_error_is_in_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_RESULTS", str(tmp_path / "results"))
    finished(tmp_path / "runs", "table2/L6", 0, 45.0, lost_parts=parts(45.0))
    (line,) = harness.records("table2/L6", "tiny").to_dict("records")
    assert line["lost_ap.missed"] == 5.0
    assert line["lost_parts.sizes.medium.AP50"] == 44.0
    assert line["lost_parts.objects.2-4.lost.missed"] == 4.0
    assert line["lost_parts.classes.names"] == ("circle", "star")
    assert line["lost_parts.classes.lost.missed"] == (27.5, 35.0)
