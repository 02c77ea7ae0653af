"""Curves of trainings: of records and of folders, of several seeds, finished or not."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from detector.runs.findings import MOST_POINTS
from detector.runs.folder import RunDir
from detector.runs.job import TrainJob
from detector.runs.log_lines import evaluated_after
from harness.figures.curves import MOST_ROWS, figure, look_of
from harness.figures.rows.training import row_curves
from harness.planning.selection import Selection
from tests.harness.figures.drawing import draw, titled
from tests.harness.figures.made import curves_of, made_records, write


def job_of(ref: str, seed: int) -> TrainJob:
    (cell,) = Selection(ref, "tiny", [], None).plan(1).cells
    return replace(cell.job.train, seed=seed)


def write_folder(tmp_path: Path, job: TrainJob, last: int, aps: dict[int, float]) -> None:
    """A run's folder without a record, whose log ends at iteration ``last``."""
    run = RunDir(tmp_path / "runs" / job.id)
    run.root.mkdir(parents=True)
    run.job.write_bytes(msgspec.json.encode(job))
    lines = (
        {"iteration": i, "classification": 2.0 / i, "bbox_regression": 1.0 / i, "lr": 0.1} for i in range(1, last + 1)
    )
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run.log.write_text("".join(f"date INFO detector.worker: {evaluated_after(i, ap)}\n" for i, ap in aps.items()))


def test_a_line_is_the_mean_of_the_seeds_and_the_band_their_range(results: Path) -> None:
    for seed in (0, 1, 2):
        write(results, made_records("tiny", {"table2/L6": {seed: 23.0 + seed}}, curves=curves_of(seed)))
    made = figure(Selection("table2", "tiny", [], None))
    canvas = draw(made)
    assert [axes.get_title() for axes in canvas.axes] == ["classification loss", "box regression loss", "learning rate"]
    axes = titled(canvas, "classification loss")
    (line,) = axes.lines
    assert [float(value) for value in line.get_ydata()] == pytest.approx([1 / i + 0.01 for i in range(1, 6)])
    (band,) = axes.collections
    (low, high) = band.get_paths()[0].get_extents().intervaly
    assert (low, high) == pytest.approx((0.2, 1.02))
    assert ("classification loss", "L6", "finished", "0 1 2", 1, pytest.approx(1.01), 1.0, 1.02) in made.numbers.rows
    assert "3 finished seeds per row" in made.caption
    assert "no AP so far" in made.caption


def test_losses_of_other_names_have_panels_of_their_own(results: Path) -> None:
    write(results, made_records("tiny", {"table2/L6": {0: 23.0}, "table2/focal": {0: 20.0}}, curves=curves_of(0)))
    made = figure(Selection("table2", "tiny", [], None))
    titles = [axes.get_title() for axes in draw(made).axes]
    assert titles[:2] == ["classification loss: focal", "classification loss: dr"]
    assert "their heights cannot be compared" in made.caption


def test_a_training_that_is_not_finished_ends_in_a_mark_and_is_not_averaged(results: Path, tmp_path: Path) -> None:
    write(results, made_records("tiny", {"table2/L6": {0: 23.0}}, curves=curves_of(0)))
    write_folder(tmp_path, job_of("table2/L6", 1), last=100, aps={50: 7.5, 100: 11.25})
    write_folder(tmp_path, job_of("table2/focal", 0), last=40, aps={})
    made = figure(Selection("table2", "tiny", [], None))
    assert "not finished: focal seed 0 at 10%, L6 seed 1 at 25%." in made.caption
    canvas = draw(made)
    so_far = titled(canvas, "AP so far")
    assert [float(value) for value in so_far.lines[0].get_ydata()] == [7.5, 11.25]
    of_dr = titled(canvas, "classification loss: dr")
    ends = [line for line in of_dr.lines if line.get_marker() == "o"]
    assert [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in ends] == [(100.0, 0.02)]
    assert not of_dr.collections  # one finished seed alone has no band


def test_a_finished_training_ends_at_the_ap_of_its_record(results: Path, tmp_path: Path) -> None:
    write(results, made_records("tiny", {"table2/L6": {0: 23.0}}))
    write_folder(tmp_path, job_of("table2/L6", 0), last=400, aps={200: 15.0})
    (row,) = row_curves(Selection("table2", "tiny", [], None))
    (training,) = row.finished
    assert training.curves["AP"] == {200: 15.0, 400: 23.0}
    assert len(training.curves["lr"]) == MOST_POINTS  # thinned as records are, the ends included
    assert min(training.curves["lr"]) == 1
    assert max(training.curves["lr"]) == 400


def test_records_without_curves_are_named_and_alone_are_missing(results: Path) -> None:
    write(results, made_records("tiny", {"table2/focal": {0: 20.0}}))
    alone = figure(Selection("table2", "tiny", [], None))
    assert alone.missing.startswith("Nothing is known of how 1 training of table2 at profile tiny went")
    assert alone.missing.endswith("harness run table2 --profile tiny")
    write(results, made_records("tiny", {"table2/L6": {0: 23.0}}, curves=curves_of(0)))
    assert "records are of format 1: 1 training of focal." in figure(Selection("table2", "tiny", [], None)).caption


def test_seeds_that_were_logged_at_other_iterations_are_joined(results: Path) -> None:
    write(results, made_records("tiny", {"table2/L6": {0: 23.0}}, curves=curves_of(0, points=5)))
    write(results, made_records("tiny", {"table2/L6": {1: 24.0}}, curves=curves_of(0, points=3)))
    axes = titled(draw(figure(Selection("table2", "tiny", [], None))), "classification loss")
    assert [float(value) for value in axes.lines[0].get_xdata()] == [1, 2, 3, 4, 5]


def test_every_row_that_is_drawn_has_a_look_of_its_own() -> None:
    looks = {(look["color"], str(look["linestyle"])) for look in map(look_of, range(MOST_ROWS))}
    assert len(looks) == MOST_ROWS


def test_a_damaged_log_leaves_the_others(results: Path, tmp_path: Path) -> None:
    write(results, made_records("tiny", {"table2/L6": {0: 23.0}}, curves=curves_of(0)))
    job = job_of("table2/L6", 1)
    write_folder(tmp_path, job, last=10, aps={})
    RunDir(tmp_path / "runs" / job.id).metrics.write_text("no numbers\n")
    (row,) = row_curves(Selection("table2", "tiny", [], None))
    assert (len(row.finished), len(row.unfinished)) == (1, 0)


def test_without_a_run_the_next_command_is_told(results: Path) -> None:
    assert figure(Selection("table2", "tiny", [], None)).missing.endswith("Next: harness run table2 --profile tiny")
