"""A profile without records: every command that has nothing to show says which profiles have some."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from detector.errors import HarnessError
from harness.cli import app
from tests.command import error, invoke

PROJECT = Path(__file__).resolve().parents[3]
COMMANDS = [
    ("table", "table2"),
    ("check", "table2"),
    ("show", "table2/L6"),
    ("compare", "table2/L6", "table2/focal"),
    ("audit", "table2"),
    ("figure", "claims", "table2"),
    ("figure", "fig4"),
    ("report", "table2", "--out", "page"),
    ("images", "table2/L6"),
    ("weights", "card", "table2/L6"),
]


@pytest.fixture(autouse=True)
def folders(empty_folders: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The committed records, which are all of the profile tiny, and no runs."""
    monkeypatch.setenv("HARNESS_RESULTS", str(PROJECT / "results"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_profile_without_records_is_told_with_those_that_have_some(arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "500"})
    said = f"{result.output} {result.exception if isinstance(result.exception, HarnessError) else ''}"
    words = " ".join(said.split())
    assert "No record at profile paper, but " in words
    assert " at tiny: add -p tiny." in words


def test_dump_says_it_too() -> None:
    assert "There are records at: tiny (" in error("dump", "-p", "paper", "--to", "csv", "--out", "x.csv")


def test_where_there_is_a_record_nothing_is_said_of_other_profiles() -> None:
    for arguments in (("show", "table2/L6"), ("audit",), ("compare", "table2/L6", "table2/focal")):
        assert "add -p" not in invoke(*arguments, "-p", "tiny").output


def test_an_unknown_metric_is_told_with_the_known_ones_also_without_a_record() -> None:
    said = error("show", "table2/L6", "--metric", "AP55")
    assert said.startswith("Unknown metric 'AP55'. Known: AP, AP50, AP75, ")
    assert said.endswith("Did you mean 'AP75'?")
