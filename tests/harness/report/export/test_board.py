"""Finished trainings as TensorBoard's files, read as TensorBoard reads them."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
from tensorboardX.record_writer import masked_crc32c

from harness.report.export.board import board_files, board_runs
from harness.report.export.records import choose_records
from tests.made_records import commit, made_record

pytestmark = pytest.mark.usefixtures("empty_folders")


def events(content: bytes) -> list[Event]:
    """The records of an event file, whose sums must be right."""
    found = []
    while content:
        length = int.from_bytes(content[:8], "little")
        assert int.from_bytes(content[8:12], "little") == masked_crc32c(content[:8])
        body = content[12 : 12 + length]
        assert int.from_bytes(content[12 + length : 16 + length], "little") == masked_crc32c(body)
        found.append(Event.FromString(body))
        content = content[16 + length :]
    assert found[0].file_version == "brain.Event:2"
    return found[1:]


def files(target: str = "table2") -> dict[str, list[Event]]:
    written = board_files(board_runs(choose_records(target, "tiny")))
    return {str(path.parent): events(content) for path, content in written}


def scalars(found: list[Event]) -> list[tuple[int, str, float]]:
    return [
        (event.step, value.tag, value.simple_value)
        for event in found
        for value in event.summary.value
        if not value.tag.startswith("_hparams_")
    ]


def plugin(event: Event) -> HParamsPluginData:
    (value,) = event.summary.value
    assert value.metadata.plugin_data.plugin_name == "hparams"
    return HParamsPluginData.FromString(value.metadata.plugin_data.content)


def test_a_training_is_one_run_with_its_curve_its_metrics_and_its_settings(tmp_path: Path) -> None:
    record = made_record("table2/L6", 1)
    commit(record, tmp_path / "results")
    found = files()
    assert list(found) == [".", f"table2/L6/seed1-{record.train_id}"]
    run = found[f"table2/L6/seed1-{record.train_id}"]
    drawn = scalars(run)
    assert drawn[:3] == [(1, "train/loss", 2.0), (1, "train/lr", pytest.approx(0.01)), (400, "train/loss", 1.25)]
    assert (400, "test/AP50", 50.0) in drawn
    assert (400, "test/AP", pytest.approx(23.4)) in drawn
    settings = plugin(run[0]).session_start_info.hparams
    assert settings["loss.surrogate.L"].number_value == 6
    assert settings["loss.name"].string_value == "dr"
    assert settings["optimizer.lr"].number_value == 0.1
    assert settings["seed"].number_value == 1
    assert settings["rows"].string_value.split() == ["table2/L6", "table1/hp-e_hn-3.5", "table3/dr"]
    ended = datetime(2024, 5, 1, 10, tzinfo=UTC).timestamp() - record.eval_seconds
    assert run[0].wall_time == ended - record.train_seconds
    assert run[-1].wall_time == ended
    experiment = plugin(found["."][0]).experiment
    assert "loss.surrogate.L" in {info.name for info in experiment.hparam_infos}
    assert "test/AP" in {info.name.tag for info in experiment.metric_infos}


def test_a_setting_that_is_a_text_in_one_run_is_a_text_in_all(tmp_path: Path) -> None:
    for ref in ("table1/hp-e_hn-e", "table1/hp-5.5_hn-3.5"):
        commit(made_record(ref, 0), tmp_path / "results")
    found = files("table1")
    values = {plugin(run[0]).session_start_info.hparams["loss.h_pos"].string_value for run in list(found.values())[1:]}
    assert values == {"e", "5.5"}


def test_the_folder_of_a_run_has_more_points_than_its_record(tmp_path: Path) -> None:
    record = made_record("table2/L6", 0)
    commit(record, tmp_path / "results")
    folder = tmp_path / "runs" / record.train_id
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"iteration": 7, "loss": 1.5}\n')
    (name,) = [name for name in files() if name != "."]
    assert [line for line in scalars(files()[name]) if line[1].startswith("train/")] == [(7, "train/loss", 1.5)]
    (folder / "metrics.jsonl").write_text("damaged\n")
    assert scalars(files()[name])[0] == (1, "train/loss", 2.0)


def test_a_second_evaluation_of_a_training_has_names_of_its_own(tmp_path: Path) -> None:
    from msgspec.structs import replace

    from detector.runs.record import content_hash

    record = made_record("table2/L6", 0)
    job = replace(record.job, test=replace(record.job.test, nms_iou=0.7))
    other = replace(record, job=job, eval_id=job.id, metrics=record.metrics | {"AP": 20.0})
    other = replace(other, sha256=content_hash(other))
    for item in (record, other):
        commit(item, tmp_path / "results")
    every = board_runs(choose_records(None, "tiny"))
    assert len(every) == 1
    assert (every[0].metrics["test/AP"], every[0].metrics[f"test-{other.eval_id}/AP"]) == (23.4, 20.0)


def test_a_training_of_no_row_has_a_folder_too(tmp_path: Path) -> None:
    from msgspec.structs import replace

    from detector.runs.record import content_hash

    record = made_record("table2/L6", 0)
    train = replace(record.job.train, optimizer=replace(record.job.train.optimizer, lr=0.123))
    job = replace(record.job, train=train)
    record = replace(record, job=job, eval_id=job.id, train_id=train.id)
    commit(replace(record, sha256=content_hash(record)), tmp_path / "results")
    (run,) = board_runs(choose_records(None, "tiny"))
    assert str(run.folder) == f"other/seed0-{train.id}"


@pytest.mark.slow
def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    commit(made_record("table2/L6", 0), tmp_path / "results")
    words = [sys.executable, "-m", "harness.cli", "dump", "-p", "tiny", "--to", "tensorboard", "--out"]
    for name in ("a", "b"):
        subprocess.run([*words, str(tmp_path / name)], check=True, capture_output=True)
    first, second = (
        {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in (tmp_path / name).rglob("events*")}
        for name in ("a", "b")
    )
    assert first
    assert first == second
