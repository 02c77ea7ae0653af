"""``harness collect``: finished records from the runs folder to the results folder."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.options import say


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(collect)


def collect(
    profile: Annotated[str | None, typer.Option(help="Only this profile's records.")] = None,
) -> None:
    """Copy new records from the runs folder to the results folder; a different one there is never overwritten."""
    from harness.folders import results_folder, runs_folder
    from harness.store.records import Store, collect

    written, conflicts = collect(Store(runs_folder(), results_folder()), profile)
    say(f"{len(written)} new records in {results_folder() / 'records'}")
    for conflict in conflicts:
        say(f"conflict: {conflict}")
    if conflicts:
        raise typer.Exit(1)
