"""States in a narrow terminal: percent, ETA and AP stand in the line of the run's name."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.console import layout
from harness.registry.load import Registry
from harness.status.text import _cut
from tests.harness.report.progress.test_in_flight import begin, finish, job_of

pytestmark = pytest.mark.usefixtures("empty_folders")


def lines_at(width: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(layout, "columns", lambda stream=None: width)
    result = CliRunner().invoke(app, ["status", "all", "-p", "tiny"], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout.splitlines()


def test_percent_and_eta_and_ap_are_in_the_line_of_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry()
    begin(job_of(registry, "table2/L6"), seconds_per_iteration=60.0)
    finish(job_of(registry, "table3/neg-only"), 23.4)
    lines = lines_at(80, monkeypatch)
    (running,) = [line for line in lines if "43%" in line]
    assert running.startswith("table1/hp-e_hn-3.5 (+")
    assert re.search(r"running 43%, ETA \d", running)
    assert any(line.startswith("table3/neg-only") and line.endswith("done (AP 23.4)") for line in lines)
    assert max(map(len, lines)) <= 80
    words = " ".join(lines[-5:])
    assert "ETA: time until it is done" in words
    assert "(+N): so many more rows that are the same training." in words


def test_in_a_wide_terminal_nothing_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join(lines_at(200, monkeypatch))
    assert "(+" not in text
    assert "table1/hp-e_hn-3.5 = table2/L6" in text


def test_a_name_keeps_as_many_rows_as_fit() -> None:
    assert _cut("table1/a = table2/b = table3/c", 23) == "table1/a (+2)"
    assert _cut("table1/a = table2/b = table3/c", 26) == "table1/a = table2/b (+1)"
    assert _cut("a-table-of-my-own/row", 20) == "a-table-of-my-own/row"  # whole, though it is too long
