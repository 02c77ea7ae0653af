"""Losses read back from a run's folder, whole or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector.errors import RecordError
from detector.runs.folder import RunDir
from harness.store.curves import read_curve

LINE = '{"iteration": 10, "loss": 1.5, "lr": 0.1}\n'


def test_read_curve_gives_the_points_in_order(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.metrics.write_text(LINE + LINE.replace("10", "20").replace("1.5", "1"))
    points = read_curve(run)
    assert points == [{"iteration": 10, "loss": 1.5, "lr": 0.1}, {"iteration": 20, "loss": 1.0, "lr": 0.1}]
    assert isinstance(points[0]["iteration"], int)
    assert isinstance(points[1]["loss"], float)


@pytest.mark.parametrize("rest", ["", '{"iteration": 20, "lo', '{"iteration": 20, "loss": 1.0}'])
def test_a_last_line_that_is_not_whole_is_left_out(tmp_path: Path, rest: str) -> None:
    run = RunDir(tmp_path)
    run.metrics.write_text(LINE + rest)
    assert [point["iteration"] for point in read_curve(run)] == [10]


@pytest.mark.parametrize("damaged", ["{", "[1]", '{"loss": 1.0}', '{"iteration": 20, "loss": "low"}'])
def test_a_damaged_line_is_named(tmp_path: Path, damaged: str) -> None:
    run = RunDir(tmp_path)
    run.metrics.write_text(LINE + damaged + "\n" + LINE)
    with pytest.raises(RecordError, match=r"metrics.jsonl:2 is damaged: "):
        read_curve(run)


def test_a_run_that_has_not_begun_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="has no metrics.jsonl: it has not begun to train"):
        read_curve(RunDir(tmp_path))
