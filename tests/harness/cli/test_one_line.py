"""Text of records, run folders and data sets that looks like lines of ours: no command begins a line with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from detector.runs.code import Code
from detector.runs.folder import RunDir
from detector.runs.status import Status
from detector.storage.files import write_json
from harness.cli import app
from harness.status.kinds import Kind, RunState
from harness.status.words import state_text
from support.micro import micro_job, write_experiments
from support.records import record_of

PLANTED = "planted: all is well"
HOSTILE = f"x\n{PLANTED}\r\n{PLANTED}\x1b[2J\u202e"
TINY = ("--profile", "tiny")
COMMANDS = [
    *(("table", "table2/L6", *TINY, "--format", fmt) for fmt in ("text", "md", "latex", "html")),
    *(("check", "table2", *TINY, "--format", fmt) for fmt in ("text", "md", "latex", "html")),
    ("list", "--runs", *TINY),
    ("show", "table2/L6", *TINY),
    ("compare", "table2/L6", "table2/focal", *TINY),
    ("audit", "table2", *TINY),
    ("plan", "table2", *TINY),
    ("status", "table2", "--seeds", "2", *TINY),
]


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_folders: None) -> None:
    """Records of two rows and a failed run, whose every free text is hostile."""
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(write_experiments(tmp_path / "experiments")))
    for ref, seed in (("table2/L6", 0), ("table2/focal", 0)):
        job = micro_job(tmp_path / "experiments", ref, seed)
        run = RunDir(tmp_path / "runs" / job.train.id)
        environment = {HOSTILE: HOSTILE, "torch": HOSTILE, "device": HOSTILE, "processes": "1", "threads": "1"}
        record = replace(
            record_of(job),
            notes=(HOSTILE, f"overridden by --set: {HOSTILE}", f"--batch-size {HOSTILE}: {HOSTILE}"),
            environment=environment,
            code=Code(version=HOSTILE, commit="0" * 40, modified=True),
        )
        write_json(run.job, job.train)
        write_json(run.record(job.id), record)
    job = micro_job(tmp_path / "experiments", "table2/L6", 1)
    run = RunDir(tmp_path / "runs" / job.train.id)
    write_json(run.job, job.train)
    write_json(run.status, Status(phase="failed", time=1.0, pid=1, message=HOSTILE, note=HOSTILE))
    run.log.write_text("a line\n")


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_line_begins_with_text_from_data(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, list(command))
    lines = result.output.splitlines()
    assert lines
    assert [line for line in lines if re.match(rf"(\W|<[a-z]+>)*{PLANTED}", line)] == []
    assert not {"\x1b", "\r", "\u202e"} & set(result.output)


@pytest.mark.parametrize("kind", ["pending", "waiting", "stopped", "lost", "failed", "done"])
def test_a_state_is_one_line_whatever_the_scheduler_or_the_run_said(kind: Kind) -> None:
    text = state_text(RunState(kind, HOSTILE))
    assert text.splitlines() == [text]
    assert not {"\x1b", "\u202e"} & set(text)
