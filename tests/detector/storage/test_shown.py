"""Text from data cannot act on a terminal: written out by the one function, through which every command prints."""

from __future__ import annotations

import importlib
import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from detector.errors import UsageError
from detector.storage.shown import one_line, shown
from harness.console.runs_view import RunsView

PROJECT = Path(__file__).resolve().parents[3]
HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b1m\rok\u202egpj\u2028\x08\x00\ud800"


@given(st.text(st.characters(min_codepoint=0, max_codepoint=0x2100)))
def test_shown_leaves_nothing_that_acts_and_all_else(text: str) -> None:
    for function, stays in ((shown, "\t\n"), (one_line, "")):
        found = function(text)
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", found.translate(dict.fromkeys(b"\t\n")))
        assert [char for char in found if char in "\t\n"] == [char for char in text if char in stays]
        assert function(found) == found
    if text.isprintable():
        assert shown(text) == text


def test_shown_writes_controls_out_as_python_does() -> None:
    assert shown("a\x1b[2Jb\n\tc\r") == "a\\x1b[2Jb\n\tc\\r"
    assert one_line("a\nb\tc") == "a\\nb\\tc"


def test_every_command_prints_through_it() -> None:
    """No command prints by itself: only ``put``, ``say`` and what they are made of."""
    for path in sorted((PROJECT / "harness" / "cli").rglob("*.py")):
        if path.name != "options.py":
            assert not re.search(r"\btyper\.echo\(|(?<![\w.])print\(|sys\.stdout", path.read_text()), path


@pytest.mark.parametrize("error", [UsageError(f"bad {HOSTILE}"), OSError(f"bad {HOSTILE}")])
def test_an_error_cannot_act(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise error

    module = importlib.import_module("harness.cli.app")
    monkeypatch.setattr(module, "app", fail)
    with pytest.raises(SystemExit):
        module.main()
    said = capsys.readouterr().err
    assert said.startswith("error: bad \\x1b]0;title\\x07")
    assert one_line(said.rstrip("\n")) == said.rstrip("\n")


def test_a_line_break_in_an_error_begins_no_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise UsageError("a name\nerror: forged\n  listed")

    module = importlib.import_module("harness.cli.app")
    monkeypatch.setattr(module, "app", fail)
    with pytest.raises(SystemExit):
        module.main()
    assert capsys.readouterr().err == "error: a name\n  error: forged\n  listed\n"


def test_names_of_runs_are_no_markup_and_no_controls() -> None:
    console = Console(file=io.StringIO(), force_terminal=False, width=200)
    with RunsView({"a": f"[red]{HOSTILE}"}, console) as view:
        view.finish("a", "done")
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[red]\\x1b]0;title" in printed
    assert shown(printed) == printed
