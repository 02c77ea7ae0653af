"""Every command on terminals of several widths: no line is longer than the terminal, and no word is broken."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from detector.errors import HarnessError
from harness.cli import app
from harness.cli.app import _message
from harness.cli.groups import GROUPS
from harness.console import layout
from tests.command import invoke

PROJECT = Path(__file__).resolve().parents[3]
TINY = ("-p", "tiny")
COMMANDS = [
    ("list",),
    ("list", "--runs"),
    ("plan", "all"),
    ("plan", "all", *TINY, "--seeds", "3"),
    ("plan", "table2", "--batch-size", "32", "--wall-time", "4h"),
    ("plan", "table2", "--gpus", "8xA100"),
    ("plan", "table2", *TINY, "--budget", "1cpuh"),
    ("status", "all", *TINY),
    ("show", "table2/L6", *TINY),
    ("show", "table2/L6"),
    ("compare", "table2/L6", "table2/focal", "table2/hinge", *TINY),
    ("compare", "table2/L6", "table2/focal"),
    ("audit", *TINY),
    ("audit",),
    ("explain", "table2/L6"),
    ("explain", "dr-r50-1x", *TINY),
    ("clean",),
    ("collect",),
    ("data", "verify", "no-such-folder"),
    # What is wrong with a command is told as wide as everything else.
    ("logs", "table2/L6", *TINY),
    ("weights", "show", "no-such-file"),
    ("schema", "tabel"),
    ("list", "--runs", "-p", "tniy"),
    ("table", "tabel2"),
    ("table", "table2/l6"),
    ("plan", "table2", "--set", "optimiser.lr=0.1"),
    ("plan", "table2", "--set", "optimizer.lrr=0.1"),
    ("table", "table2", "-f", "txt"),
    ("check", "--looks", "x"),
    ("run", "table2", "--cluster", "exampel"),
    ("statsu",),
]
MORE_ROWS = "(+N): so many more rows that are the same training."  # said where there is no room for them
OTHER_WIDTHS = [60, 200]
AT_OTHER_WIDTHS = {"list", "plan all", "compare table2/L6 table2/focal table2/hinge -p tiny", "table tabel2"}


LABELS = 20  # columns that the name of a field may take before a word that is as long as the terminal is wide


@pytest.fixture(autouse=True)
def folders(empty_folders: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The committed records, and no runs."""
    monkeypatch.setenv("HARNESS_RESULTS", str(PROJECT / "results"))


def printed(monkeypatch: pytest.MonkeyPatch, width: int | None, arguments: tuple[str, ...]) -> str:
    monkeypatch.setattr(layout, "columns", lambda stream=None: width)
    result = CliRunner().invoke(app, list(arguments), terminal_width=width)
    if isinstance(result.exception, HarnessError):
        return result.output + layout.wrapped(_message(result.exception), width)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.output


def words_of(text: str) -> set[str]:
    return {word.strip(";,") for word in text.split() if not re.fullmatch(r"-+|\\|\(\+\d+\)", word)}


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_no_line_is_longer_than_the_terminal_and_no_word_is_broken(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    piped = words_of(printed(monkeypatch, None, arguments))
    for width in [80, *(OTHER_WIDTHS if " ".join(arguments) in AT_OTHER_WIDTHS else ())]:
        text = printed(monkeypatch, width, arguments)
        long = [line for line in text.splitlines() if len(line) > width]
        assert [line for line in long if max(map(len, line.split())) < width - LABELS] == []
        assert words_of(text) - piped - {"-", "rows,"} - words_of(MORE_ROWS) == set()


def test_a_command_is_wrapped_so_that_a_shell_takes_it() -> None:
    command = "harness run table2/L6 --profile tiny --set 'loss.surrogate={name: hinge}' --seeds 3"
    lines = layout.wrapped(f"Mended. Next: {command}", 50).split("\n")
    assert lines[0] == "Mended. Next:"
    assert max(map(len, lines)) <= 50
    joined = " ".join(line.strip().removesuffix("\\").strip() for line in lines[1:])
    assert joined == command
    assert all(line.endswith(" \\") for line in lines[1:-1])


def test_a_line_goes_on_below_its_last_column() -> None:
    assert layout.wrapped("note  GPUs   none: profiles run on the CPU", 30).split("\n") == [
        "note  GPUs   none: profiles",
        "             run on the CPU",
    ]
    assert layout.wrapped("x" * 50 + " y", 40) == "x" * 50 + "\n  y"


def test_a_table_that_is_too_wide_wraps_headings_then_cells_then_is_told_row_by_row() -> None:
    rows, heads = [["L6", "smooth hinge", 37.4], ["focal", "focal loss", 36.1]], ["row", "what it is", "the paper's"]
    assert layout.table(rows, heads, 40).split("\n") == layout.table(rows, heads, None).split("\n")
    assert layout.table(rows, heads, 30) == "\n".join(
        [
            "row    what it is          the",
            "                       paper's",
            "-----  ------------  ---------",
            "L6     smooth hinge       37.4",
            "focal  focal loss         36.1",
        ]
    )
    assert any(re.fullmatch(r"L6     smooth +37.4", line) for line in layout.table(rows, heads, 24).split("\n"))
    assert layout.table(rows, heads, 15).split("\n")[:4] == ["L6", "  what it is", "    smooth", "    hinge; the"]


def test_piped_output_does_not_depend_on_the_environment() -> None:
    environment = {**os.environ, "HARNESS_RUNS": "/nonexistent"}
    outputs = {
        subprocess.run(
            [sys.executable, "-m", "harness.cli", "explain", "table2/L6"],
            env=environment | changed,
            capture_output=True,
            check=True,
        ).stdout
        for changed in ({"COLUMNS": "60"}, {"FORCE_COLOR": "1"}, {"TERM": "dumb", "NO_COLOR": "1"})
    }
    assert len(outputs) == 1


def test_every_command_is_in_a_group_and_is_told_in_one_sentence() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert set(commands) - {name for group in GROUPS.values() for name in group} == set()
    text = CliRunner().invoke(app, ["-h"], terminal_width=80).output
    for title, names in GROUPS.items():
        _, _, listed = text.partition(f"{title}:\n")
        there = [name for name in names if name in commands]
        assert [line.split()[0] for line in listed.partition("\n\n")[0].splitlines() if line[2] != " "] == there


def test_version_names_the_commit_and_loads_no_torch() -> None:
    code = (
        "import sys; from harness.cli import app\n"
        "app(['--version'], standalone_mode=False); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version, torch = done.stdout.splitlines()
    assert re.match(r"harness \d+\.\d+", version)
    assert torch == "False"


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("table", "Table2"), "'table2'"),
        (("table", "tabel2/L6"), "'table2/L6'"),
        (("show", "L6", *TINY), "'table2/L6'"),
        (("plan", "table2/Hinge"), "'table2/hinge'"),
        (("plan", "table2", "-p", "Tiny"), "'tiny'"),
        (("plan", "table2", "--set", "optimizer.rl=1"), "'optimizer.lr'"),
        (("explain", "table2/neg_only"), None),
        (("explain", "table3/neg_only"), "'table3/neg-only'"),
        (("new", "table", "mine", "--recipe", "dr-r50"), "'dr-r50-1x'"),
        (("table", "table2", "--format", "latx"), "'latex'"),
        (("show", "table2/L6", *TINY, "--metric", "ap"), "'AP'"),
        (("weights", "shwo"), "'show'"),
        (("lits",), "'list'"),
    ],
)
def test_an_unknown_name_gets_the_one_that_was_meant(arguments: tuple[str, ...], meant: str | None) -> None:
    result = CliRunner().invoke(app, list(arguments))
    assert isinstance(result.exception, HarnessError)
    said = str(result.exception)
    assert said.endswith(f" Did you mean {meant}?") if meant else "Did you mean" not in said


def test_a_profile_or_recipe_in_the_place_of_a_target_is_told() -> None:
    for name, told in (("tiny", "'tiny' is a profile: --profile tiny."), ("dr-r50-1x", "harness explain dr-r50-1x.")):
        result = CliRunner().invoke(app, ["table", name])
        assert str(result.exception).endswith(told)


@pytest.mark.usefixtures("empty_folders")
def test_abbreviations_of_a_budget_and_of_a_figure_are_explained_at_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HARNESS_RESULTS", str(PROJECT / "results"))
    bought = invoke("plan", "table2", *TINY, "--budget", "1cpuh").stdout
    assert "CPU-process-hours: hours of one training process on a CPU" in bought.rstrip().split("\n\n")[-1]
    drawn = invoke("figure", "claims", *TINY, "--out", str(tmp_path / "claims.svg")).stdout
    assert "AP: COCO's average precision, in percent" in drawn.rstrip().split("\n\n")[-1]
