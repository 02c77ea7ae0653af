"""Every command in a real terminal: no line is longer than it is wide, and no word is broken."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from harness.registry.load import Registry
from support.terminal import in_terminal
from tests.harness.cli.test_exit_codes import COMMANDS
from tests.harness.cli.test_terminal import words_of
from tests.harness.report.progress.test_in_flight import begin, job_of

pytestmark = pytest.mark.slow
PROJECT = Path(__file__).resolve().parents[3]
# Of each command what it does at once, what it refuses, and its help; then the longer texts.
LINES = [
    *(f"{name} {done}".strip() for name, (done, _) in COMMANDS.items() if done is not None),
    *(f"{name} {wrong}" for name, (_, wrong) in COMMANDS.items() if wrong),
    *(f"{name} -h" for name in COMMANDS),
    "-h",
    *(f"{group} -h" for group in ("data", "weights", "bundle", "new")),
    "list --runs",
    "status all -p tiny",
    "compare table2/L6 table2/focal table2/hinge -p tiny",
    "check all -p tiny",
    "table all -p tiny --notes all",
    "plan all -p tiny --seeds 3",
    "plan table2 --gpus 8xA100 --wall-time 4h",
    "plan table2 -p tiny --budget 1cpuh",
    "show table2 -p tiny",
    "explain dr-r50-1x -p tiny",
]
EXACT = ("schema ",)  # JSON, whose lines are as long as they are
LABELS = 20  # columns that a word may be shorter than the terminal and still not fit behind a label


@pytest.fixture(autouse=True)
def here(empty_folders: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The committed records, no runs, and a folder of one file to work in."""
    monkeypatch.setenv("HARNESS_RESULTS", str(PROJECT / "results"))
    monkeypatch.delenv("HARNESS_EXPERIMENTS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    (tmp_path / "here.txt").touch()


def piped(line: str, folder: Path) -> str:
    command = [sys.executable, "-m", "harness.cli", *shlex.split(line)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def too_long(text: str, width: int) -> list[str]:
    """Lines that are longer than the terminal, though their longest word would have fitted."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    lines = [line.split("\r")[-1] for line in plain.split("\n")]
    return [line for line in lines if len(line) > width and max(map(len, line.split())) < width - LABELS]


@pytest.mark.parametrize("line", LINES)
def test_a_command_keeps_to_80_columns(line: str, tmp_path: Path) -> None:
    one, other = tmp_path / "terminal", tmp_path / "pipe"
    for folder in (one, other):
        folder.mkdir()
        (folder / "here.txt").touch()
    text, _ = in_terminal(shlex.split(line), 80, folder=one)
    if not line.startswith(EXACT):
        assert too_long(text, 80) == []
    if line.endswith(" -h") or line == "-h":
        return  # click wraps it, also in a pipe
    known = words_of(piped(line, other).replace(str(other), str(one)))
    lines = [row.split() for row in text.split("\n")]
    ends = [(above[-1], below[0]) for above, below in pairwise(lines) if above and below]
    assert [a + b for a, b in ends if (a + b).strip(";,") in known and not {a, b} & known] == []


@pytest.mark.parametrize("width", [60, 200])
@pytest.mark.parametrize(
    "line", ["list", "table all -p tiny", "check all -p tiny", "status all -p tiny", "audit -p tiny"]
)
def test_some_commands_keep_to_other_widths(line: str, width: int, tmp_path: Path) -> None:
    assert too_long(in_terminal(shlex.split(line), width, folder=tmp_path)[0], width) == []


def test_status_watch_shows_percent_and_eta_and_ends_with_130_on_ctrl_c(tmp_path: Path) -> None:
    job = job_of(Registry(), "table1/hp-e_hn-3.5")
    begin(job, seconds_per_iteration=60.0)
    text, code = in_terminal(
        ["status", "table1/hp-e_hn-3.5", "-p", "tiny", "--watch"], 80, folder=tmp_path, type_after=("43%", b"\x03")
    )
    assert code == 130
    assert re.search(r"running 43%, ETA \d", text)  # how long, depends on when it was looked
    assert "Traceback" not in text
