"""The command line: its commands in the order of ``harness --help``, and its entry point.

Commands import what is slow only when they run, so that ``--help`` and completion answer at once.
"""

from __future__ import annotations

import io
import os
import re
import sys
import warnings
from contextlib import suppress
from itertools import pairwise
from typing import Annotated, Any, NoReturn

import typer

from detector.errors import HarnessError, UsageError
from detector.storage.shown import one_line, shown
from harness.cli import interrupts
from harness.cli.files import browse, bundle, data, images, model, new, own_data, schema, test_dev, weights
from harness.cli.groups import Commands, GroupedCommands
from harness.cli.options import put, say
from harness.cli.refusals import refusal
from harness.cli.results import audit, collect, compare, dump, figure, report, show, tables
from harness.cli.runs import clean, doctor, plan, run, status, trace

app = typer.Typer(
    name="harness",
    help="Reproduces the tables and claims of 'DR Loss: Improving Object Detection by Distributional Ranking'.\n\n"
    "Start with: harness run table2 --profile tiny; then harness table table2 --profile tiny.",
    cls=GroupedCommands,
    context_settings={"help_option_names": ["--help", "-h"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (
    *(tables, figure, report, show, compare, audit, plan, run, status, clean, trace, doctor, collect, dump, model),
    *(images, test_dev, schema),
):
    module.add_to(app)
own_data.add_to(data.app)
browse.add_to(data.app)
app.add_typer(bundle.app, name="bundle", cls=Commands)
app.add_typer(data.app, name="data", cls=Commands)
app.add_typer(new.app, name="new", cls=Commands)
app.add_typer(weights.app, name="weights", cls=Commands)


def _print_version(wanted: bool) -> None:
    if wanted:
        from harness.code.version import current_code

        code = current_code()
        commit = f", commit {code.commit[:12]}{' with changes' if code.modified else ''}" if code.commit else ""
        put(f"harness {code.version}{commit}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and the commit."),
    ] = False,
) -> None:
    """Options of ``harness`` itself."""


# What typer says of words that do not fit the command: an unknown option, a missing argument.
_WRONG_WORDS: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
BROKEN_PIPE = 141  # as shells give it: 128 and the number of SIGPIPE
_LONGEST = 10_000  # letters of an error: more are of no use in a terminal


def _log_plainly() -> None:
    """Where nothing else was set up, warnings are printed as lines in which nothing acts on a terminal."""
    import logging  # not above: ``--help`` answers without it

    class Plain(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return shown(super().format(record))

    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(Plain())
    logging.lastResort = handler


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """One of Python's own warnings, on one line: its text may come from a file."""
    return f"{one_line(f'{filename}:{lineno}: {category.__name__}: {message}')}\n"


def _message(error: Exception | str) -> str:
    """The one message. Further lines are indented: a line break in a file's name begins no message of its own."""
    text = str(error)
    if len(text) > _LONGEST:  # an argument of a megabyte is quoted in the message about it
        text = f"{text[: _LONGEST // 2]} [{len(text) - _LONGEST:,} letters] {text[-_LONGEST // 2 :]}"
    return re.sub(r"\n(?! )", "\n  ", f"error: {text}")


def main() -> None:
    """Entry point. A HarnessError becomes one message on stderr and exit code 2, without a traceback.

    What the operating system refuses (a full disk, a read-only folder) becomes one message that names the file, and
    exit code 1. Ctrl-C ends with 130, whatever goes on. Where the reader of a pipe has gone, the command ends there:
    without a word, and with 141, since what it had still to do is not done.
    """
    interrupts.run(_run)


def _run() -> None:
    if not {"--help", "-h"} & set(sys.argv):
        _log_plainly()
    warnings.formatwarning = _warning
    try:
        _refuse_empty(sys.argv[1:])
        code = app(standalone_mode=False)
    except _WRONG_WORDS as error:
        shown_there = io.StringIO()
        error.show(shown_there)
        _say(shown_there.getvalue().rstrip("\n"), code=error.exit_code)
    except typer.Abort:
        sys.exit(interrupts.CODE)
    except HarnessError as error:
        _say(_message(error), code=2)
    except BrokenPipeError:
        _leave_the_pipe()
    except OSError as error:
        _say(_message(refusal(error)), code=1)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # typer's own answer to it is 1
            _leave_the_pipe()
        raise
    sys.exit(code if isinstance(code, int) else 0)


def _say(message: str, *, code: int) -> NoReturn:
    """Say the one message and exit, also where nobody can read it."""
    with suppress(OSError):
        say(message)
    sys.exit(code)


def _leave_the_pipe() -> NoReturn:
    """Exit as programs do that the signal SIGPIPE ends. What is still to be written goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    sys.exit(BROKEN_PIPE)


def _refuse_empty(arguments: list[str]) -> None:
    """Raises UsageError for an argument without a character: a variable of the shell that is not set, mostly.

    An empty path would mean the working directory.
    """
    for before, argument in pairwise(["harness", *arguments]):
        if not argument.strip():
            raise UsageError(f"The argument after {before!r} is empty. Give a value, or leave it out.")
