"""The exit code of every command: 0 done, 2 wrong use, 130 after Ctrl-C, 141 where the reader of a pipe has gone."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from harness.cli import app
from harness.cli.app import main
from harness.console import layout

PROJECT = Path(__file__).resolve().parents[3]
# By command: what is done at once (None: it needs a training), and what is refused.
COMMANDS: dict[str, tuple[str | None, str]] = {
    "list": ("", "-p tniy"),
    "table": ("table2 -p tiny", "tabel2"),
    "check": ("table2 -p tiny", "table2 --looks x"),
    "show": ("table2/L6 -p tiny", "table2/L6 --metric AP55"),
    "compare": ("table2/L6 table2/focal", "table2/L6 nothing"),
    "audit": ("-p tiny", "nothing"),
    "explain": ("table2/L6", "nothing"),
    "figure": ("fig3 --out fig3.svg", "clams"),
    "report": ("table3 -p tiny --out page", "nothing"),
    "images": (None, "table2/L6"),
    "plan": ("table2", "table2 -p tniy"),
    "run": (None, "table2/L6 -p tniy"),
    "status": ("table2", "nothing"),
    "logs": (None, "table2/L6"),
    "cancel": ("table2", "nothing"),
    "clean": ("", "nothing"),
    "trace": (None, "nothing"),
    "doctor": ("", "--wait 3"),
    "collect": ("", "-p tniy"),
    "bundle export": (None, "records.tar -p tniy"),
    "bundle import": (None, "no-file.tar"),
    "dump": ("-p tiny --to csv --out records.csv", "-p paper --to csv --out records.csv"),
    "export": (None, "table2/L6"),
    "record": (None, "table4/dr-r101 --from-server no-file.txt"),
    "eval": (None, "nothing"),
    "score": (None, "no-file.json --data no-folder"),
    "detect": (None, "no-file.png --run table2/L6 --out drawn"),
    "weights show": (None, "no-file.pth"),
    "weights convert": (None, "no-file.pth --to detectron2 --out x.pkl"),
    "weights card": (None, "table2/L6"),
    "data synth": ("--out shapes --train 2 --test 1", "--out here.txt --train 2 --test 1"),
    "data subset": (None, "no-folder --out x"),
    "data download": (None, "--out coco --annotations-zip no-file.zip"),
    "data verify": (None, ""),  # what is wrong with the data is what it was asked for
    "data fix": (None, "no-folder x"),
    "data import": (None, "no-folder --out x"),
    "data browse": (None, "no-folder"),
    "new table": ("mine --out own", "'my table'"),
    "new recipe": ("mine --out own", "mine --extends dr-r50"),
    "new profile": ("mine --out own", "mine --iterations 9"),
    "new cluster": ("mine --out clusters", "'my cluster'"),
    "new loss": ("mine --out own", "'my loss'"),
    "schema": ("table", "tabel"),
}
AT_ONCE = [f"{name} {done}".strip() for name, (done, _) in COMMANDS.items() if done is not None]
WRONG = [f"{name} {wrong}" for name, (_, wrong) in COMMANDS.items() if wrong]
QUICK = ("list", "table", "check", "explain", "plan", "status", "clean", "new", "schema")


def slow_unless(quick: tuple[str, ...] | None, lines: list[str]) -> list[Any]:
    """The lines as parameters, those of other commands marked slow. None: all but those that take seconds."""
    taking = ("report", "doctor", "figure")
    return [
        line if (line.split()[0] not in taking if quick is None else line.split()[0] in quick) else _slow(line)
        for line in lines
    ]


def _slow(line: str) -> Any:
    return pytest.param(line, marks=pytest.mark.slow)


@pytest.fixture(autouse=True)
def here(empty_folders: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The committed records, no runs, and a folder of one file to work in."""
    monkeypatch.setenv("HARNESS_RESULTS", str(PROJECT / "results"))
    monkeypatch.delenv("HARNESS_EXPERIMENTS", raising=False)
    (tmp_path / "here.txt").touch()
    monkeypatch.chdir(tmp_path)


def leaves(command: Any, name: str = "") -> Iterator[str]:
    """Every command by the words that name it."""
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        yield name
    else:
        for word, inner in subcommands.items():
            if not inner.hidden:
                yield from leaves(inner, f"{name} {word}".strip())


def code_of(monkeypatch: pytest.MonkeyPatch, line: str) -> int:
    """The exit code of the entry point itself, in this process, whose own outputs stay open."""
    monkeypatch.setattr(sys, "argv", ["harness", *shlex.split(line)])
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        main()
    assert isinstance(end.value.code, int)
    return end.value.code


def test_every_command_is_tried_here() -> None:
    assert set(leaves(get_command(app))) == set(COMMANDS)


@pytest.mark.parametrize("line", slow_unless(None, AT_ONCE))
def test_what_is_done_ends_with_0(line: str) -> None:
    result = CliRunner().invoke(app, shlex.split(line), catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("line", WRONG)
def test_wrong_use_ends_with_2_and_one_message(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of(monkeypatch, line) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("error: ") == 1


def test_what_a_check_finds_ends_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    assert code_of(monkeypatch, "data verify no-folder") == 1


@pytest.mark.parametrize("line", slow_unless(QUICK, AT_ONCE))
@pytest.mark.parametrize(("raised", "code"), [(KeyboardInterrupt(), 130), (BrokenPipeError(32, "Broken pipe"), 141)])
def test_an_interruption_ends_with_130_and_a_broken_pipe_with_141(
    raised: BaseException,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def echo(*_: object, **__: object) -> NoReturn:
        raise raised

    monkeypatch.setattr(typer, "echo", echo)
    assert code_of(monkeypatch, line) == code
    assert capsys.readouterr().err.strip() == ""


def process(line: str, output: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness.cli", *shlex.split(line)],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("line", ["list", "--help", "schema table"])
def test_the_reader_of_a_pipe_may_leave(line: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        done = process(line, pipe)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("line", ["list", "--help", "list --json"])
def test_a_full_disk_behind_the_output_is_one_sentence(line: str) -> None:
    with open("/dev/full", "w") as full:
        done = process(line, full)
    assert done.returncode == 1
    assert done.stderr == "error: What this command prints could not be written: No space left on device.\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("dump --to csv --out x --what x", "'x' is not one of 'records', 'curves', 'claims', 'cells', 'jobs'"),
        ("list --porfile tiny", "No such option: --porfile"),
        ("table", "Missing argument 'TARGET'"),
        ("check --looks", "requires an argument"),
    ],
)
def test_words_that_fit_no_command_end_with_2_as_wide_as_the_terminal(
    line: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(layout, "columns", lambda stream=None: 60)
    assert code_of(monkeypatch, line) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in " ".join(err.split())
    assert max(map(len, err.splitlines())) <= 60
