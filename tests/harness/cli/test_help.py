"""Help and completion: whole sentences, ``-h`` everywhere, and every word that has choices is offered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from harness.cli import app

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def folders(empty_folders: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The committed records, and no runs."""
    monkeypatch.setenv("HARNESS_RESULTS", str(PROJECT / "results"))


FREE = {"name", "looks", "wall_time", "budget", "ids", "classes", "licence", "attribute"}  # words of one's own


def leaves(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        yield name, command
    else:
        for word, inner in subcommands.items():
            yield from leaves(inner, f"{name} {word}".strip())


def test_every_argument_and_option_that_has_choices_offers_them() -> None:
    """Numbers, files and switches have none; literals are offered by typer itself."""
    without = []
    for name, command in leaves(get_command(app)):
        for parameter in command.params:
            kind = getattr(parameter, "type_descriptor", None)
            annotation = str(getattr(kind, "annotation", ""))
            own = getattr(parameter, "_custom_shell_complete", None) is not None
            if "'str'" in annotation or "list[str]" in annotation:
                without += [] if own or parameter.name in FREE else [f"{name}: {parameter.name}"]
    assert without == []


def test_every_help_text_is_a_sentence() -> None:
    for name, command in leaves(get_command(app)):
        assert command.get_short_help_str(200).endswith("."), name
        assert command.help.strip().endswith("."), name
        for parameter in command.params:
            text = getattr(parameter, "help", None) or ""
            assert text.endswith((".", "...")) or parameter.name == "help", f"{name}: {parameter.name}: {text}"


def test_every_command_within_a_group_takes_h() -> None:
    for group in ("data", "weights", "bundle", "new"):
        assert "--help, -h" in CliRunner().invoke(app, [group, "-h"]).output.replace("-h, --help", "--help, -h")


def test_every_command_takes_h() -> None:
    runner = CliRunner()
    for name in get_command(app).commands:  # type: ignore[attr-defined]
        assert runner.invoke(app, [name, "-h"]).output == runner.invoke(app, [name, "--help"]).output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("harness table table2 --format la", "latex"),
        ("harness show table2/L6 --metric APS", "APS"),
        ("harness explain dr-r50-", "dr-r50-1x"),
        ("harness run table2 --set optimizer.l", "optimizer.lr="),
        ("harness table table2 --source co", "committed"),
        ("harness plan table2 --gpus 4xH1", "4xH100"),
        ("harness weights convert x --to det", "detectron2"),
        ("harness run table2 --cluster ex", "example"),
        ("harness schema re", "recipe"),
        ("harness table table2 --columns n,ou", "n,ours"),
        ("harness table table2 --metrics AP,APL,AP7", "AP,APL,AP75"),
        ("harness figure fig2,cl", "fig2,claims"),
        ("harness logs table2/L6 --seed ", "2"),
        ("harness data verify x --split va", "val2017"),
        ("harness bundle export x --target table3/n", "table3/neg-only"),
        ("harness images table2/rho0.", "table2/rho0.5"),
        ("harness weights card table2/rho0.", "table2/rho0.5"),
        ("harness data browse x --row table2/rho0.", "table2/rho0.5"),
        ("harness data import x y --group vi", "video"),
        ("harness run table2 -p ti", "tiny"),
        ("harness show table2/L6 --source lo", "local"),
        ("harness detect x --device cu", "cuda"),
        ("harness report -p sm", "smoke"),
        ("harness dump --to par", "parquet"),
    ],
)
def test_completion_offers_what_has_choices(words: str, expected: str) -> None:
    variables = {"_HARNESS_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    result = CliRunner().invoke(app, [], env=variables, prog_name="harness")
    assert expected in result.output.split()
