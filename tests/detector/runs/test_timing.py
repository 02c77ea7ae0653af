"""Where the time went: of two parts together, as a line of the log, in a record, in words."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from detector.errors import RecordError
from detector.runs.job import EvalJob
from detector.runs.record import Record
from detector.runs.status import Status, progress_text
from detector.runs.timing import StepTiming, joined, recorded, timing_text
from detector.storage.files import write_json
from detector.storage.reading import read_json
from support.records import first_format, record_of
from tests.repository.layers import PROJECT

ON_CPU = StepTiming(iterations=10, seconds=2.0, data_seconds=0.5, host_seconds=1.5, images_per_second=80.0)
ON_GPU = StepTiming(
    iterations=30,
    seconds=6.0,
    data_seconds=0.5,
    host_seconds=1.0,
    images_per_second=40.0,
    device_busy=0.9,
    peak_memory_gib=7.5,
)


def test_joined_adds_seconds_and_weighs_the_rest_by_them() -> None:
    assert joined(None, ON_GPU) == ON_GPU
    other = msgspec.structs.replace(ON_GPU, iterations=10, seconds=2.0, device_busy=0.5, peak_memory_gib=9.0)
    assert joined(ON_GPU, other) == StepTiming(
        iterations=40,
        seconds=8.0,
        data_seconds=1.0,
        host_seconds=2.0,
        images_per_second=40.0,
        device_busy=pytest.approx(0.8),  # 0.9 of 6 s and 0.5 of 2 s
        peak_memory_gib=9.0,
    )


def test_joined_leaves_out_what_one_part_does_not_know() -> None:
    both = joined(ON_CPU, ON_GPU)
    assert (both.device_busy, both.peak_memory_gib) == (pytest.approx(0.9), 7.5)
    assert both.images_per_second == pytest.approx((2 * 80 + 6 * 40) / 8)
    assert joined(ON_CPU, ON_CPU).device_busy is None
    assert joined(ON_CPU, ON_CPU).peak_memory_gib is None


def test_a_line_of_the_log_has_seconds_per_iteration_and_nothing_unknown() -> None:
    assert ON_CPU.per_iteration() == {
        "seconds_per_iteration": 0.2,
        "data_seconds_per_iteration": 0.05,
        "host_seconds_per_iteration": 0.15,
        "images_per_second": 80.0,
    }
    assert ON_GPU.per_iteration().keys() - ON_CPU.per_iteration().keys() == {"device_busy", "peak_memory_gib"}


@pytest.mark.parametrize(
    ("seconds", "data", "busy", "expected"),
    [
        (0.0614, 0.009, 0.94, "0.061 s per iteration, data 1%, GPU 94%"),
        (2.345, 0.2, None, "2.35 s per iteration, data 20%"),
        (12.345, None, None, "12.3 s per iteration"),
    ],
)
def test_timing_text(seconds: float, data: float | None, busy: float | None, expected: str) -> None:
    assert timing_text(seconds, data, busy) == expected


def test_progress_text_says_where_the_time_goes_as_soon_as_it_is_known() -> None:
    status = Status(phase="training", time=0.0, pid=1, iteration=5, iterations=10, loss=1.5)
    assert progress_text(status) == "iteration 5/10, loss 1.500"
    timed = msgspec.structs.replace(status, seconds_per_iteration=0.0614, data_share=0.01, device_busy=0.94)
    assert progress_text(timed) == "iteration 5/10, loss 1.500, 0.061 s per iteration, data 1%, GPU 94%"


def test_a_record_keeps_the_totals_rounded() -> None:
    exact = msgspec.structs.replace(ON_GPU, data_seconds=0.12345678, images_per_second=40.123456)
    kept = recorded(msgspec.to_builtins(exact))
    assert kept is not None
    assert (kept.data_seconds, kept.images_per_second, kept.device_busy) == (0.123, 40.12, 0.9)
    assert recorded(None) is None  # weights of before


def test_records_of_before_are_read_and_written_without_a_timing(tmp_path: Path) -> None:
    path = min((PROJECT / "results" / "records" / "tiny").glob("*.json"))
    record = first_format(read_json(path, Record))
    assert record.timing is None
    write_json(tmp_path / "again.json", record)
    assert read_json(tmp_path / "again.json", Record) == record
    assert msgspec.json.decode((tmp_path / "again.json").read_bytes()).keys() == {
        *("format", "eval_id", "train_id", "profile", "job", "metrics", "train_split", "test_split", "environment"),
        *("code", "train_seconds", "eval_seconds", "finished", "notes"),
    }


def test_a_record_with_a_timing_is_read_back_and_checked(tmp_path: Path, job: EvalJob) -> None:
    path = tmp_path / "record.json"
    record = msgspec.structs.replace(record_of(job), timing=ON_GPU)
    write_json(path, record)
    assert read_json(path, Record) == record
    path.write_text(path.read_text().replace("device_busy", "device_lazy"))
    with pytest.raises(RecordError, match="device_lazy"):
        read_json(path, Record)
