"""``harness logs``: which file, which end of it, and following until the run ends."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import typer

from detector.errors import UsageError
from detector.runs.folder import RunDir
from detector.runs.status import Status
from detector.storage.files import write_json
from harness.cli.runs import logs as cli_logs
from harness.failures.log_tail import last_lines, tail
from harness.status import logs as status_logs
from harness.status.logs import follow, output, outputs
from support.micro import micro_job, write_experiments
from tests.command import error, invoke


def context() -> typer.Context:
    """Of a command line without options."""
    return typer.Context(typer.main.get_command(typer.Typer(callback=lambda: None, invoke_without_command=True)))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_folders: None) -> RunDir:
    """A failed run of table2/L6."""
    monkeypatch.setenv("HARNESS_EXPERIMENTS", str(write_experiments(tmp_path / "experiments")))
    job = micro_job(tmp_path / "experiments").train
    run = RunDir(tmp_path / "runs" / job.id)
    write_json(run.job, job)
    write_json(run.status, Status(phase="failed", time=time.time(), pid=1, message="x"))
    run.log.write_text("".join(f"line {i}\n" for i in range(1, 101)))
    return run


def print_as(run: RunDir, name: str, text: str, age: float = 0.0) -> Path:
    path = run.submitit / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_logs_prints_the_end_of_the_log_by_row_id_and_folder(run: RunDir) -> None:
    expected = "".join(f"line {i}\n" for i in range(51, 101))
    assert invoke("logs", "table2/L6", "--profile", "tiny").stdout == expected
    assert invoke("logs", run.root.name[:6]).stdout == expected
    assert invoke("logs", str(run.root)).stdout == expected
    assert invoke("logs", run.root.name, "--lines", "1").stdout == "line 100\n"
    assert invoke("logs", run.root.name, "--lines", "0").stdout.startswith("line 1\n")


def test_logs_of_a_rank_is_what_it_printed_at_its_newest_start(run: RunDir) -> None:
    print_as(run, "900_0_log.out", "old\n", age=100)
    print_as(run, "900_1_log.out", "old of 1\n", age=100)
    print_as(run, "800_0_log.out", "new\n")
    print_as(run, "800_1_log.out", "new of 1\n")
    assert invoke("logs", run.root.name, "--rank", "0").stdout == "new\n"
    assert invoke("logs", run.root.name, "--rank", "1").stdout == "new of 1\n"
    assert "there are of: 0, 1" in error("logs", run.root.name, "--rank", "2")


def test_outputs_of_an_array_element_with_errors_apart(run: RunDir) -> None:
    out = print_as(run, "77_3_0_log.out", "words\n")
    err = print_as(run, "77_3_0_log.err", "Traceback\n")
    empty = print_as(run, "77_3_1_log.err", "")
    assert outputs(run) == {0: [out, err], 1: []}
    assert output(run, 0) == err
    assert output(run, 1) is None
    assert empty.exists()


def test_logs_of_a_run_that_ended_before_its_log_shows_what_it_printed(run: RunDir) -> None:
    run.log.unlink()
    print_as(run, "5_0_log.out", "ModuleNotFoundError: No module named 'torch'\n")
    result = invoke("logs", run.root.name)
    assert "ModuleNotFoundError" in result.stdout
    assert "ended before its log" in result.stderr


def test_logs_refuses_what_is_no_run(run: RunDir) -> None:
    assert "give TABLE/ROW" in error("logs", "table2")
    assert "no id begins with it" in error("logs", "ffff")
    message = error("logs", "table2/focal", "--profile", "tiny", "--seed", "1")
    assert "harness run table2/focal --profile tiny --seeds 2" in message
    run.log.unlink()
    assert "has no log yet" in error("logs", run.root.name)


def test_logs_follow_ends_with_the_run_and_loses_no_line(
    run: RunDir, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, numbers = ExitStack(), list(range(101, 106))

    def write_more(seconds: float) -> None:
        with run.log.open("ab") as file:
            file.write(f"line {numbers.pop(0)} ä\n".encode())
        if not numbers:
            lock.close()

    monkeypatch.setattr(cli_logs, "WATCH_SECONDS", 0.0)  # how often the state is looked at
    monkeypatch.setattr(status_logs.time, "sleep", write_more)
    with lock:
        lock.enter_context(run.lock())  # flock is by open file: this process's own lock is seen like another's
        cli_logs.logs(context(), run.root.name, follow=True, num_lines=2)
    assert capsys.readouterr().out.splitlines() == ["line 99", "line 100", *(f"line {i} ä" for i in range(101, 106))]


def test_follow_begins_anew_in_a_new_file_and_joins_split_characters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_logs, "FOLLOW_SECONDS", 0.0)
    first, second = tmp_path / "1", tmp_path / "2"
    first.write_bytes("aä".encode()[:2])
    second.write_text("second")
    steps = iter([first, first, second, second])
    said: list[str] = []
    ends = iter([False, False, True])

    def ended() -> bool:
        with first.open("ab") as file:
            file.write("ä".encode()[1:] if not said[1:] else b"")
        return next(ends)

    follow(lambda: next(steps), 0, ended, said.append)
    assert "".join(said).startswith("aä")
    assert "".join(said).endswith("second")


def test_tail_reads_the_end_of_a_long_file_only(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("first\n" + "x" * 100_000 + "\nlast\n")
    assert tail(path).endswith("\nlast\n")
    assert "first" not in tail(path)
    assert tail(path, 0).startswith("first\n")
    assert tail(tmp_path / "none") == ""


def test_last_lines_leaves_out_the_message_and_cuts_the_width() -> None:
    launchers = ["submitit INFO (2024-05-01) - Loading pickle", "2024-05-01 ERROR submitit: Submitted job failed"]
    text = "\n".join(["a", "", *launchers, "ERROR detector.worker: DataError: no pictures here", "b" * 300])
    assert last_lines(text, "no pictures here", width=10) == ["a", "bbbbbbb..."]


def test_by_id_names_two_runs_whose_ids_begin_alike(run: RunDir) -> None:
    other = RunDir(run.root.with_name(run.root.name[:8] + "00000000"))
    other.root.mkdir()
    with pytest.raises(UsageError, match="2 ids begin with it"):
        cli_logs.logs(context(), run.root.name[:8])


def test_logs_prints_no_control_sequence(run: RunDir) -> None:
    run.log.write_text("\x1b[2Jcleared\tand\n\x07bell\n")
    assert invoke("logs", run.root.name).stdout == "\\x1b[2Jcleared\tand\n\\x07bell\n"
