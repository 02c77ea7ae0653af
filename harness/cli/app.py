"""The command line: its commands in the order of ``harness --help``, and its entry point.

Commands import what is slow only when they run, so that ``--help`` and completion answer at once.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer

from detector.errors import HarnessError, UsageError
from detector.storage.shown import one_line, shown
from harness.cli import interrupts
from harness.cli.files import browse, bundle, data, images, model, new, own_data, schema, test_dev, weights
from harness.cli.groups import Commands, GroupedCommands
from harness.cli.options import put, say
from harness.cli.results import audit, collect, compare, dump, figure, report, show, tables
from harness.cli.runs import clean, doctor, plan, run, status, trace
from harness.folders import elsewhere_text, refused_text

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
    exit code 1. Ctrl-C ends with 130, whatever goes on.
    """
    interrupts.run(_run)


def _run() -> None:
    if not {"--help", "-h"} & set(sys.argv):
        _log_plainly()
    warnings.formatwarning = _warning
    try:
        _refuse_empty(sys.argv[1:])
        app()
    except HarnessError as error:
        say(_message(error))
        sys.exit(2)
    except BrokenPipeError:  # the reader of a pipe has gone: nobody is left to tell
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        say(_message(_refusal(error)))
        sys.exit(1)


def _refuse_empty(arguments: list[str]) -> None:
    """Raises UsageError for an argument without a character: a variable of the shell that is not set, mostly.

    An empty path would mean the working directory.
    """
    for before, argument in pairwise(["harness", *arguments]):
        if not argument.strip():
            raise UsageError(f"The argument after {before!r} is empty. Give a value, or leave it out.")


def _refusal(error: OSError) -> str:
    """``FILE: what the system says``; two files where it refused to bring one to the place of the other.

    Where it is a matter of permissions, also whose the file is and what to do.
    """
    if isinstance(error, PermissionError) and isinstance(error.filename, str | os.PathLike):
        path = os.fspath(error.filename)
        return f"{path}: {error.strerror}. {refused_text(Path(path))}"
    files = " to ".join(os.fsdecode(name) for name in (error.filename, error.filename2) if name is not None)
    if not (files and error.strerror):
        return str(error)
    return f"{files}: {error.strerror}" + _other_folder(error)


def _other_folder(error: OSError) -> str:
    """A sentence with the variable that names another folder, where the system refused to write into that one."""
    refused = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOTDIR, errno.EIO, errno.ENAMETOOLONG)
    if error.errno not in refused or not isinstance(error.filename, str | os.PathLike):
        return ""
    elsewhere = elsewhere_text(Path(os.fspath(error.filename)))
    return f".{elsewhere}" if elsewhere else ""
