"""``harness dump``: records, curves and verdicts for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from detector.errors import UsageError
from harness.cli.options import ForceOption, ProfileOption, SourceOption, complete_targets, refuse, say
from harness.units import MAX_SEEDS


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(short_help="Write records, curves or verdicts as CSV, Parquet or TensorBoard's files.")(dump)


def dump(
    context: typer.Context,
    to: Annotated[
        Literal["csv", "parquet", "tensorboard"],
        typer.Option("--to", metavar="csv|parquet|tensorboard", help="The form of what is written."),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="PATH", help="The file to write; for tensorboard, the folder to make.")
    ],
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TARGET",
            help="all (the paper's tables), a table such as table2, a row such as table2/L6; or several of them.",
            autocompletion=complete_targets,
            show_default="all, and records of no row",
        ),
    ] = None,
    profile: ProfileOption = "paper",
    what: Annotated[
        Literal["records", "curves", "claims", "cells", "jobs"],
        typer.Option(
            "--what",
            metavar="records|curves|claims|cells|jobs",
            help="records: one line per finished evaluation. curves: one per row, seed and logged iteration. claims: "
            "one per contrast of a claim. cells: one per row of a table. jobs: one per training that the targets need.",
        ),
    ] = "records",
    seeds: Annotated[
        int, typer.Option("--seeds", "-n", min=1, max=MAX_SEEDS, help="With --what jobs: runs per row.")
    ] = 1,
    source: SourceOption = None,
    force: ForceOption = False,
) -> None:
    """Write records, curves, claims, cells or trainings whole and unrounded, with one column per setting.

    The columns are those of harness.records and the other frames in Python. In CSV an empty cell is a missing value,
    lists are JSON, and no cell can become a formula. For tensorboard each training is a run, with its curve, its final
    metrics, and the settings that the HPARAMS page compares.
    """
    from harness.report.export.dump import dump as write

    if what != "jobs":
        refuse(context, ["seeds"], "goes with --what jobs.")
    if to == "tensorboard":
        refuse(context, ["what"], "goes with csv and parquet; TensorBoard is given the curves. Leave it out.")
        refuse(context, ["force"], "goes with a file; TensorBoard's folder must be new. Leave it out.")
    if out.suffix in (".csv", ".parquet") and out.suffix != f".{to}":
        raise UsageError(f"--to {to} does not fit the name {out}. Name it with another ending, or change --to.")
    say(write(targets or None, profile, to=to, what=what, out=out, seeds=seeds, source=source, force=force))
