"""Python's own warnings act on no terminal either."""

from __future__ import annotations

import sys
import warnings

import pytest

from harness.cli.app import _run


def test_a_warning_is_one_line_without_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # put back afterwards
    monkeypatch.setattr(sys, "argv", ["harness", "--help"])
    with pytest.raises(SystemExit):
        _run()
    text = warnings.formatwarning("bad \x1b[2J\nerror: planted", UserWarning, "a\nb.py", 3)
    assert text == "a\\nb.py:3: UserWarning: bad \\x1b[2J\\nerror: planted\n"
