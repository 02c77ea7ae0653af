"""The command line: its commands in the order of ``harness --help``, and its entry point.

Commands import what is slow only when they run, so that ``--help`` and completion answer at once.
"""

from __future__ import annotations

import logging
import re
import sys

import typer

from detector.errors import HarnessError
from harness.cli.files import bundle, data, model, new, schema, test_dev, weights
from harness.cli.options import say
from harness.cli.results import audit, collect, compare, show, tables
from harness.cli.runs import doctor, plan, run, status, trace
from harness.console.shown import shown

app = typer.Typer(
    name="harness",
    help="Reproduces the tables and claims of 'DR Loss: Improving Object Detection by Distributional Ranking'.\n\n"
    "Start with: harness run table2 --profile tiny; then harness table table2 --profile tiny.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (tables, show, compare, audit, plan, run, status, trace, doctor, collect, model, test_dev, schema):
    module.add_to(app)
app.add_typer(bundle.app, name="bundle")
app.add_typer(data.app, name="data")
app.add_typer(new.app, name="new")
app.add_typer(weights.app, name="weights")


class _Plain(logging.Formatter):
    """A line of the log in which nothing acts on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """For logging."""
        return shown(super().format(record))


def _plain_log() -> logging.Handler:
    """What prints warnings where nothing else was set up."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(_Plain())
    return handler


def _message(error: Exception) -> str:
    """The one message. Further lines are indented: a line break in a file's name begins no message of its own."""
    return re.sub(r"\n(?! )", "\n  ", f"error: {error}")


def main() -> None:
    """Entry point. A HarnessError becomes one message on stderr and exit code 2, without a traceback.

    What the operating system refuses (a full disk, a read-only folder) becomes one message and exit code 1.
    """
    logging.lastResort = _plain_log()
    try:
        app()
    except HarnessError as error:
        say(_message(error))
        sys.exit(2)
    except BrokenPipeError:  # the reader of a pipe has gone: nobody is left to tell
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        say(_message(error))
        sys.exit(1)
