"""``harness compare``: rows, recipes, runs and records side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.completion import rows_and_recipes
from harness.cli.options import AsJson, DataOption, ProfileOption, print_json, put
from harness.console import layout


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(short_help="Compare rows, runs or records: numbers, noise, settings, curves.")(compare)


def compare(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [C ...]",
            help="Each a row (table2/L6), a recipe, either with other settings (table2/L6@optimizer.lr=0.005), a "
            "training's id, a run's folder, or a record's file.",
            autocompletion=rows_and_recipes,
        ),
    ],
    profile: ProfileOption = "paper",
    data: DataOption = None,
    as_json: AsJson = False,
) -> None:
    """Compare two things or more with the first: metrics with their noise, kinds of errors, settings, inputs, curves.

    A difference has two kinds of noise, each as half of a 95% interval: that of the seeds, and that of the test set's
    images, which is known where runs have their matches per image beside them. What was never run is compared by its
    settings.
    """
    from harness.report.compare.comparison import as_data
    from harness.report.compare.comparison import compare as compared
    from harness.report.compare.text import comparison_text

    found = compared(names, profile, data)
    if as_json:
        print_json(as_data(found))
    else:
        put(comparison_text(found, layout.columns()))
