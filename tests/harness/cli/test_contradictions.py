"""Options that mean nothing together, empty targets, absurd sizes: each is one message, and nothing is begun."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.cli.app import _refuse_empty
from tests.command import error

pytestmark = pytest.mark.usefixtures("empty_folders")
ROW = ("table2/L6", "--profile", "tiny")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("table", "all", "--json", "--format", "csv"), "--format csv and --json contradict each other"),
        (("check", "all", "--json", "--format", "text"), "--format text and --json contradict each other"),
        (("list", "--profile", "tiny"), "--profile goes with --runs"),
        (("list", "--runs", "--profile", "big"), "Unknown profile 'big'. Known:"),
        (("collect", "--profile", "big"), "Unknown profile 'big'. Known:"),
        (("plan", "table2", "--budget", "4gpuh", "--seeds", "1"), "--seeds cannot be given with a budget"),
        (("plan", "table2", "--budget", "4gpuh", "--wall-time", "4h"), "--wall-time cannot be given with a budget"),
        (("plan", "table2", "--budget", "4gpuh", "--set", "optimizer.lr=1"), "--set cannot be given with a budget"),
        (("plan", "table2", "--budget", "4gpuh", "--batch-size", "8"), "--batch-size cannot be given with a budget"),
        (("explain", "dr-r50-1x", "--batch-size", "8"), "--batch-size goes with a row"),
        (("run", *ROW, "--dry-run"), "--dry-run shows what --cluster NAME would submit"),
        (("run", *ROW, "--weights", "w.pth"), "--weights w.pth has no use here"),
        (("trace", *ROW, "--weights", "w.pth", "--device", "cpu"), "has no use here"),
        (("status", "--seeds", "2"), "--seeds goes with a target"),
        (("status", "all", "--watch", "--json"), "--watch draws on a terminal"),
        (("doctor", "--wait", "3"), "--wait goes with --cluster"),
        (("eval", *ROW, "--split", "val2017"), "--split goes with --weights"),
        (("eval", *ROW, "--out", "x"), "--out goes with --weights"),
        (("eval", *ROW, "--backend", "pycocotools"), "--backend goes with --weights"),
        (("eval", *ROW, "--weights", "w.pth"), "Give a row, such as table2/L6, or both --recipe NAME and --weights"),
        (("eval", "--recipe", "dr-r50-1x", "--weights", "w.pth", "--seed", "0"), "--seed chooses among the runs"),
        (("new", "profile", "x", "--gpu"), "--gpu goes with --data ROOT"),
        (("record", "--from-server", "x.txt", "--seed", "1"), "--seed goes with a row"),
        (("record", "--from-server", "x.txt", "--data", "."), "--data goes with a row"),
        # Targets that name nothing.
        (("table", ""), "Unknown table ''. Known: table1"),
        (("plan", " "), "Unknown table ' '. Known: table1"),
        (("run", "table2/", "--profile", "tiny"), "Unknown row '' of table2. Known: focal"),
        (("status", ""), "Unknown table ''. Known: table1"),
        (("logs", ""), "'' is no run"),
        (("detect", "a.png", "--out", "x", "--run", ""), "Unknown table ''. Known: table1"),
    ],
)
def test_what_means_nothing_together_is_refused(arguments: tuple[str, ...], message: str) -> None:
    assert message in error(*arguments)


@pytest.mark.parametrize("command", ["logs", "detect"])
def test_options_that_choose_among_runs_do_not_go_with_one_runs_folder(tmp_path: Path, command: str) -> None:
    (tmp_path / "submitit").mkdir()
    named = ("a.png", "--out", "x", "--run", str(tmp_path)) if command == "detect" else (str(tmp_path),)
    for option in (("--profile", "tiny"), ("--seed", "0"), ("--data", ".")):
        assert f"{option[0]} chooses among the runs of a row" in error(command, *named, *option)


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "table2", "--seeds", "1000000000"),
        ("plan", "table2", "--seeds", "1001"),
        ("status", "table2", "--seeds", "1001"),
        ("plan", "table2", "--batch-size", "1000000000000"),
        ("eval", "table2/L6", "--seed", "5000000"),
        ("detect", "a.png", "--out", "x", "--seed", "1000"),
        ("doctor", "--cluster", "x", "--wait", "1e300"),
        ("doctor", "--cluster", "x", "--wait", "nan"),
        ("detect", "a.png", "--out", "x", "--min-score", "nan"),
        ("trace", "table2/L6", "--steps", "1000000000"),
        ("data", "synth", "--out", "x", "--train", "1000000000000"),
        ("data", "synth", "--out", "x", "--size", "1000000000"),
        ("data", "synth", "--out", "x", "--seed", "99999999999999999999"),
        ("data", "subset", "x", "--out", "y", "--seed", "-1"),
    ],
)
def test_absurd_numbers_are_refused_with_the_valid_ones(arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 2
    # The second: older versions of typer.
    words = ("Input should be ", "is not in the range ", "not a finite number")
    assert any(each in result.output for each in words)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["schedule.milestones=[300, 200]"], "schedule.milestones is [300, 200]: out of order"),
        (["schedule.milestones=[200, 500]"], "schedule.milestones is [200, 500]: beyond the end, iteration 400"),
        (["schedule.iterations=1000000000000"], "schedule.iterations is 1000000000000: expected `int` <= 1000000000"),
        (["batch.images=1000000000000"], "batch.images is 1000000000000: expected `int` <= 65536"),
        (["model.anchor_scale=1e308"], "model.anchor_scale is 1e+308: expected `float` <= 10000.0"),
        (["model.aspect_ratios=[1, 1e300]"], "expected `float` <= 10000.0"),
        (["model.fpn_channels=1000000000"], "expected `int` <= 65536"),
        (["optimizer.lr=.inf"], "optimizer.lr is inf"),
        (["optimizer.lr=1e300"], "optimizer.lr is 1e+300: expected `float` <= 1000000.0"),
        (["test.short_sides=[1000000000]"], "expected `int` <= 16384"),
        (["model.aspect_ratios=[.nan]"], "model.aspect_ratios"),
        (["loss.tau=1e300"], "loss.tau is 1e+300: expected `float` <= 1000000.0"),
        (["data.num_train=1000000000000"], "expected `int` <= 10000000"),
        (["optimizer.lr=0.1", "optimizer.lr=0.2"], "--set gives optimizer.lr two values"),
    ],
)
def test_settings_out_of_all_range_are_told_before_work_begins(overrides: list[str], message: str) -> None:
    options = [word for override in overrides for word in ("--set", override)]
    assert message in error("run", *ROW, *options)


def test_a_shorter_training_may_leave_milestones_behind() -> None:
    arguments = ["plan", *ROW, "--set", "schedule.iterations=100"]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0


def test_an_empty_argument_is_named_with_what_stands_before_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "table", "all", "--data", ""],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: The argument after '--data' is empty. Give a value, or leave it out.\n"
    _refuse_empty(["table", "all"])
