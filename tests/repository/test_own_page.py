"""docs/own.md: its shell blocks, in their order, from the page's text alone."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from harness.cli import app
from support.own_data import own_data
from tests.command import invoke

PAGE = Path(__file__).resolve().parents[2] / "docs" / "own.md"
# What trains or submits; tests/system/test_new_profile.py trains the first.
LONG = {"harness run", "harness doctor"}


def steps() -> Iterator[tuple[str, str]]:
    """Every command of the page, and the text that it is given (``<<'END'``)."""
    for block in re.findall(r"```shell\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL):
        lines = iter(block.splitlines())
        for line in lines:
            text = ""
            if line.endswith("<<'END'"):
                text = "".join(f"{part}\n" for part in iter(lambda: next(lines), "END"))  # noqa: B023
            yield line, text


def parse(words: list[str]) -> Result:
    """Options are read before help is printed, so that nothing runs and an unknown one is an error."""
    return CliRunner().invoke(app, [*words, "--help"])


def test_every_command_of_the_page_exists_with_its_options() -> None:
    lines = [line for line, _ in steps() if line.startswith("harness ")]
    assert len(lines) > 15
    for line in lines:
        result = parse(shlex.split(line)[1:])
        assert result.exit_code == 0, (line, result.output)


def test_a_wrong_option_would_be_seen() -> None:
    assert "No such option" in parse(["new", "table", "mine", "--no-such-option"]).output


@pytest.mark.slow
@pytest.mark.usefixtures("empty_folders")
def test_the_page_works_from_its_text_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("HARNESS_EXPERIMENTS", "HARNESS_CLUSTERS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PWD", str(tmp_path))
    own_data(Path("my-data"), splits=("train", "val"))
    for line, text in steps():
        first, *rest = shlex.split(line)
        if first == "export":
            name, _, value = rest[0].partition("=")
            monkeypatch.setenv(name, os.path.expandvars(value))
        elif first == "mkdir":
            Path(rest[-1]).mkdir()
        elif first == "cat":
            Path(rest[1]).write_text(text, encoding="utf-8")
        elif first == "harness" and ("--dry-run" in rest or f"harness {rest[0]}" not in LONG):
            invoke(*rest)
    assert Path("my-focal/pyproject.toml").is_file()
