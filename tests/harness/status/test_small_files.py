"""Anything in the place of a run's small files: each command answers, names the file, and shows the other runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import harness
from detector.errors import RecordError
from detector.runs.folder import RunDir
from detector.runs.status import Status
from detector.storage.files import write_json
from harness.cli import app
from harness.failures.log_tail import tail
from support.micro import micro_job, write_experiments
from support.records import record_of
from tests.command import error, invoke

TINY = ("--profile", "tiny")
Put = Callable[[Path], object]
BAD: dict[str, Put] = {
    "a named pipe": os.mkfifo,
    "a folder": os.mkdir,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link in a loop": lambda path: path.symlink_to(path),
    "bytes": lambda path: path.write_bytes(b"\xff\x00\xfe"),
    "nested": lambda path: path.write_bytes(b"[" * 100_000),
}
FILES = ("status.json", "job.json", "failure-1.json", "inputs.json", "metrics.jsonl", "log.txt", "environment.json")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_folders: None) -> list[RunDir]:
    """Two finished runs of table2/L6."""
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(write_experiments(tmp_path / "experiments")))
    found = []
    for seed in (0, 1):
        job = micro_job(tmp_path / "experiments", "table2/L6", seed)
        run = RunDir(tmp_path / "runs" / job.train.id)
        write_json(run.job, job.train)
        write_json(run.status, Status(phase="failed", time=1.0, pid=1, message="it broke"))
        write_json(run.record(job.id), record_of(job))
        run.metrics.write_text('{"iteration": 10, "loss": 1.5}\n')
        run.log.write_text("a line\n")
        found.append(run)
    return found


def put(path: Path, what: str) -> None:
    path.unlink(missing_ok=True)
    BAD[what](path)


@pytest.mark.parametrize("what", BAD)
def test_every_command_survives_anything_in_the_place_of_small_files(runs: list[RunDir], what: str) -> None:
    for name in FILES:
        put(runs[0].root / name, what)
    shown = invoke("status", "table2/L6", *TINY).stdout
    assert shown.count("done (AP 23.4)") == 2
    if what != "a link in a loop":  # it is no file, as if there were none
        assert f"{runs[0].job} " in shown or f"{runs[0].job}:" in shown
    assert "50.0" in invoke("table", "table2/L6", *TINY).stdout
    assert "a line\n" in invoke("logs", runs[1].root.name).stdout
    if what not in ("a link in a loop", "bytes", "nested"):
        assert f"{runs[0].log} " in invoke("logs", runs[0].root.name).stdout
    assert harness.curves("table2/L6", profile="tiny")["seed"].tolist() == [1]


@pytest.mark.parametrize("what", [name for name in BAD if name != "a link in a loop"])
def test_a_heartbeat_that_cannot_be_read_is_a_failure_of_its_run_alone(runs: list[RunDir], what: str) -> None:
    for run in runs:
        (record,) = run.root.glob("evals/*/record.json")
        record.unlink()
    put(runs[0].status, what)
    shown = invoke("status", "table2/L6", *TINY).stdout
    assert f"failed (record): {runs[0].status}"[:60] in shown
    assert "failed (unknown): it broke" in shown


@pytest.mark.parametrize("what", [name for name in BAD if name != "a link in a loop"])
def test_a_broken_record_is_not_done_and_named_by_each_command(runs: list[RunDir], what: str, tmp_path: Path) -> None:
    (path,) = runs[0].root.glob("evals/*/record.json")
    put(path, what)
    shown = invoke("status", "table2/L6", *TINY).stdout
    assert shown.count("done (AP 23.4)") == 1
    assert f"failed (record): {path}"[:60] in shown
    assert "Move it away, then run again." in shown
    assert "Set aside, in no number (1 file): " in invoke("table", "table2/L6", *TINY).stdout
    plan = invoke("plan", "table2/L6", "--seeds", "2", *TINY).stdout
    assert "broken record" in plan
    assert str(path) in plan
    assert harness.plan("table2/L6", profile="tiny", seeds=2)["done"].tolist() == [False, True]
    assert str(path) in invoke("audit", "table2/L6", *TINY).stdout
    packed = CliRunner().invoke(app, ["bundle", "export", str(tmp_path / "out.zip")], catch_exceptions=False)
    assert packed.exit_code == 1
    packed_not = f"conflict: {path} is a link that leaves" if path.is_symlink() else f"not packed: {path}"
    assert packed_not in packed.output
    assert "1 records" in packed.output


@pytest.mark.parametrize("what", BAD)
def test_a_record_that_is_compared_by_name_gives_one_sentence(runs: list[RunDir], what: str, tmp_path: Path) -> None:
    put(tmp_path / "record.json", what)
    said = error("compare", str(tmp_path / "record.json"), "table2/L6", *TINY)
    assert "Traceback" not in said


def test_a_job_that_was_edited_is_named_by_status(runs: list[RunDir]) -> None:
    runs[0].job.write_text(runs[1].job.read_text())
    shown = invoke("status", "table2/L6", *TINY).stdout
    assert f"{runs[0].job} is the job of {runs[1].root.name}, not of its folder." in shown


@pytest.mark.parametrize("torn", [b'{"iteration": 2', b"\xff\xfe", b'{"iteration": NaN, "loss": 1.0}', b"[" * 5000])
def test_curves_of_a_torn_file_are_left_out_with_a_word(
    runs: list[RunDir], torn: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    runs[0].metrics.write_bytes(torn + b"\n" + runs[0].metrics.read_bytes())
    assert harness.curves("table2/L6", profile="tiny")["seed"].tolist() == [1]
    assert f"{runs[0].metrics}:1 is damaged" in caplog.text
    runs[1].metrics.write_bytes(torn + b"\n")
    with pytest.raises(RecordError, match="metrics.jsonl:1 is damaged"):
        harness.curves("table2/L6", profile="tiny")


def test_of_a_huge_log_only_the_end_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with log.open("wb") as file:
        file.truncate(10 * 2**30)  # it takes no room on the disk
        file.seek(0, os.SEEK_END)
        file.write(b"\nfirst\nlast\n")
    assert tail(log, 2) == "first\nlast\n"
    assert tail(log).endswith("last\n")
