"""``harness show``: from a number to all that it rests on."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from harness.cli.completion import metrics
from harness.cli.options import (
    AsJson,
    BatchSizeOption,
    DataOption,
    ProfileOption,
    SetOption,
    SourceOption,
    complete_targets,
    print_json,
    put,
    refuse,
)
from harness.console import layout


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(short_help="Show the evidence behind a row's number, or behind one run.")(show)


def show(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET|ID",
            help="all, a table, a row such as table2/L6, or an id's first digits.",
            autocompletion=complete_targets,
        ),
    ],
    profile: ProfileOption = "paper",
    metric: Annotated[
        str,
        typer.Option("--metric", help="Which number: AP .. APL, AR1 .., positive_score, ...", autocompletion=metrics),
    ] = "AP",
    batch_size: BatchSizeOption = None,
    overrides: SetOption = None,
    data: DataOption = None,
    source: SourceOption = None,
    as_json: AsJson = False,
) -> None:
    """Print what a number rests on: records, seeds, ids, starts, code, data, weights, health, logs, and the command
    that makes it again.

    An id (of a training or an evaluation; 'harness list --runs' has them) shows one run of any profile, also with
    --set. What a record of an older format does not say is 'unknown'.
    """
    from harness.planning.selection import Selection
    from harness.report.evidence.show import evidence, evidence_of
    from harness.report.evidence.text import evidence_text

    found = evidence_of(target, metric, source) if re.fullmatch(r"[0-9a-f]{4,16}", target) else None
    if found is not None:
        other = ("profile", "batch_size", "overrides", "data")
        refuse(context, other, f"chooses among the runs of a row; {target} is one run. Leave it out.")
    else:
        selection = Selection(target, profile, overrides or [], data, batch_size, source=source)
        found = evidence(selection, metric)
    if as_json:
        print_json(found)
    else:
        put(evidence_text(found, layout.columns()))
