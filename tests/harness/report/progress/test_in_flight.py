"""Tables while runs go on: how far each row is, its AP so far, and the rows that share a training."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from detector.runs.code import Code
from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.runs.log_lines import LOG_FORMAT, ap_by_iteration, evaluated_after
from detector.runs.record import Record, SplitFingerprint
from detector.runs.status import Status
from detector.storage.files import write_json
from harness.planning.selection import Selection
from harness.registry.declarations import METRICS
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve
from harness.report.formats import FORMATS, render_tables
from harness.report.progress.in_flight import progress_text
from harness.report.tables import RowView, TableView
from harness.report.views import table_views

pytestmark = pytest.mark.usefixtures("empty_folders")
SPLIT = SplitFingerprint(images=1, boxes=1, sha256="0")


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry()


def job_of(registry: Registry, ref: str, seed: int = 0, profile: str = "tiny") -> EvalJob:
    return eval_job(resolve(registry, ref, registry.profile(profile)), seed)


def begin(job: EvalJob, *, age: float = 1.0, log: str = "", **status: Any) -> RunDir:
    """The folder of a run that goes on, or ended without a record."""
    run = RunDir(Path(os.environ["HARNESS_RUNS"]) / job.train.id)
    write_json(run.job, job.train)
    values = {"phase": "training", "pid": 1, "iteration": 43, "iterations": 100} | status
    write_json(run.status, Status(time=time.time() - age, **values))
    run.log.write_text(log)
    return run


def finish(job: EvalJob, ap: float, *, log: str = "") -> None:
    run = RunDir(Path(os.environ["HARNESS_RUNS"]) / job.train.id)
    write_json(run.job, job.train)
    run.log.write_text(log)
    record = Record(
        format=1,
        eval_id=job.id,
        train_id=job.train.id,
        profile="tiny",
        job=job,
        metrics=dict.fromkeys(METRICS, ap),
        train_split=SPLIT,
        test_split=SPLIT,
        environment={},
        code=Code(version="0", commit=None, modified=None),
        train_seconds=1.0,
        eval_seconds=1.0,
        finished="2024-05-01T10:00:00+00:00",
        notes=(),
    )
    write_json(run.record(job.id), record)


def log_of(ap: dict[int, float]) -> str:
    """Lines of a log as the worker writes them."""
    said = {"asctime": "2024-05-01 10:00:00,000", "levelname": "INFO", "name": "detector.worker.run"}
    return "".join(LOG_FORMAT % (said | {"message": evaluated_after(at, value)}) + "\n" for at, value in ap.items())


def view_of(target: str, **options: Any) -> TableView:
    (view,) = table_views(Selection(target, "tiny", [], None, **options))
    return view


def row_of(view: TableView, ref: str) -> RowView:
    (row,) = [row for row in view.rows if row.ref == ref]
    return row


def test_ap_on_the_way_is_read_from_the_lines_of_the_log() -> None:
    log = log_of({30_000: 12.34, 60_000: 20.5}) + "2024 INFO x: AP 33.0\n" + log_of({60_000: 21.5})
    assert ap_by_iteration(log) == {30_000: 12.34, 60_000: 21.5}
    assert ap_by_iteration(f"x: {evaluated_after(1, None)}\nx: after iteration 2: AP") == {}


def test_rows_are_pending_running_stopped_provisional_or_final(registry: Registry) -> None:
    begin(job_of(registry, "table2/focal"))
    begin(job_of(registry, "table2/hinge"), phase="stopped")
    finish(job_of(registry, "table2/L4"), 30.0)
    finish(job_of(registry, "table2/L8"), 30.0)
    finish(job_of(registry, "table2/L8", 1), 31.0)
    begin(job_of(registry, "table2/L4", 1), phase="evaluating", progress=0.25)
    view = view_of("table2")
    states = {row.ref.split("/")[1]: row.state for row in view.rows}
    assert states["focal"] == "running"
    assert states["hinge"] == "stopped"
    assert states["L4"] == "provisional"
    assert states["L8"] == "final"
    assert states["L10"] == "pending"
    assert progress_text(row_of(view, "table2/focal")) == "running 43%"
    assert progress_text(row_of(view, "table2/hinge")) == "stopped at 43%"
    assert progress_text(row_of(view, "table2/L4")) == "evaluating 25%"
    text = render_tables([view], "text")
    assert "ours   1/2  30.0" in text
    assert "running 43%" in text
    assert "Provisional, seeds are missing: L = 4 (1 of 2)." in text.replace("\n  ", " ")


def test_ap_so_far_is_that_of_all_rows_after_the_same_iteration(registry: Registry) -> None:
    begin(job_of(registry, "table2/focal"), ap=21.0, log=log_of({30: 20.0, 60: 21.0}))
    begin(job_of(registry, "table2/hinge"), ap=19.0, log=log_of({30: 19.0}))
    finish(job_of(registry, "table2/L4"), 33.0, log=log_of({30: 22.0, 60: 25.0, 90: 30.0}))
    view = view_of("table2")
    so_far = {row.ref: (row.so_far.iteration, row.so_far.ap, row.so_far.n) for row in view.rows if row.so_far}
    assert so_far == {"table2/focal": (30, 20.0, 1), "table2/hinge": (30, 19.0, 1), "table2/L4": (30, 22.0, 1)}
    assert row_of(view, "table2/focal").ours == {}  # never a result
    for fmt in ("text", "md", "html"):
        assert "AP so far 20.0 after iteration 30" in render_tables([view], fmt)
    (note,) = [note for note in view.footnotes if note.startswith("AP so far")]
    assert "all after iteration 30 (one evaluation on the way, no result" in note
    assert "Focal 20.0 (n 1); Hinge 19.0 (n 1); L = 4 22.0 (n 1)" in note


def test_a_row_says_which_rows_share_its_numbers(registry: Registry) -> None:
    begin(job_of(registry, "table2/L6"))
    view = view_of("table2")
    assert row_of(view, "table2/L6").also == ("table1/hp-e_hn-3.5", "table3/dr")
    assert row_of(view, "table2/L4").also == ()
    assert any("L = 6 (also table1/hp-e_hn-3.5, table3/dr)" in note for note in view.footnotes)
    assert row_of(view_of("table3"), "table3/dr").state == "running"


def test_two_tests_of_one_training_are_not_the_same_numbers() -> None:
    (view,) = table_views(Selection("table4", "paper", [], None))
    assert row_of(view, "table4/dr-r101").also == ()


def test_only_one_of_two_evaluations_may_be_missing(registry: Registry) -> None:
    """The single-scale row of Table 4 is done; the multi-scale one of the same training is being evaluated."""
    finish(job_of(registry, "table4/dr-r101"), 40.0)
    begin(job_of(registry, "table4/dr-r101"), phase="evaluating", progress=0.5)
    view = view_of("table4")
    assert row_of(view, "table4/dr-r101").state == "final"
    assert progress_text(row_of(view, "table4/dr-r101-ms")) == "evaluating 50%"


def test_committed_records_show_nothing_of_it(registry: Registry) -> None:
    begin(job_of(registry, "table2/focal"), ap=21.0, log=log_of({30: 20.0}))
    view = view_of("table2", source="committed")
    assert row_of(view, "table2/focal").state == "pending"
    assert not any("so far" in note or "Not finished" in note for note in view.footnotes)


def test_damaged_files_of_a_run_stop_no_table(registry: Registry) -> None:
    begin(job_of(registry, "table2/focal")).status.write_bytes(b"\xff{")
    begin(job_of(registry, "table2/hinge")).job.write_text("{}")
    run = begin(job_of(registry, "table2/L4"), ap=3.0)
    run.log.write_bytes(b"\xff\x00 after iteration 9999999999999999999999: AP 1e999\n")
    run = begin(job_of(registry, "table2/L8"), ap=3.0)
    run.log.unlink()
    run.log.mkdir()
    view = view_of("table2")
    for fmt in FORMATS:
        assert render_tables([view], fmt)
    assert row_of(view, "table2/L8").state == "running"
    assert row_of(view, "table2/hinge").state == "pending"


def test_a_run_of_another_setting_fills_no_row(registry: Registry) -> None:
    job = job_of(registry, "table2/focal")
    begin(replace(job, train=replace(job.train, optimizer=replace(job.train.optimizer, lr=0.5))))
    assert row_of(view_of("table2"), "table2/focal").state == "pending"


def test_a_run_on_a_folder_that_was_not_named_is_found(registry: Registry) -> None:
    job = job_of(registry, "table2/focal", profile="smoke")
    data = replace(job.train.data, train_sha256="1" * 64, test_sha256="2" * 64)  # type: ignore[type-var]
    begin(replace(job, train=replace(job.train, data=data)))
    (view,) = table_views(Selection("table2", "smoke", [], None))
    assert row_of(view, "table2/focal").state == "running"


def test_json_has_state_progress_and_shared_rows(registry: Registry) -> None:
    begin(job_of(registry, "table2/L6"), ap=20.0, log=log_of({30: 20.0}))
    rows = {row["ref"]: row for row in json.loads(render_tables([view_of("table2")], "json"))[0]["rows"]}
    row = rows["table2/L6"]
    assert (row["state"], row["in_flight"]) == ("running", [{"seed": 0, "state": "running", "progress": 0.43}])
    assert row["so_far"] == {"iteration": 30, "ap": 20.0, "n": 1}
    assert row["also"] == ["table1/hp-e_hn-3.5", "table3/dr"]
