"""The command in this process."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner, Result

from detector.errors import HarnessError
from harness.cli import app


def invoke(*arguments: str) -> Result:
    """Run the command, which must end well."""
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def error(*arguments: str) -> str:
    """The message of a command that must refuse."""
    with pytest.raises(HarnessError) as caught:
        CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    return str(caught.value)
