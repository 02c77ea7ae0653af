"""``harness collect``: finished records from the runs folder to the results folder."""

from __future__ import annotations

import typer

from harness.cli.options import OnlyProfileOption, say


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(short_help="Copy new records from the runs to the results.")(collect)


def collect(profile: OnlyProfileOption = None) -> None:
    """Copy new records from the runs folder to the results folder. A record there is never overwritten.

    Exits with 1 where the same evaluation has other numbers there.
    """
    from harness.folders import results_folder, runs_folder
    from harness.registry.load import Registry
    from harness.store.records import Store, collect

    if profile is not None:
        Registry().profile(profile)  # refuses an unknown name
    written, conflicts = collect(Store(runs_folder(), results_folder()), profile)
    say(f"{len(written)} new records in {results_folder() / 'records'}")
    for conflict in conflicts:
        say(f"conflict: {conflict}")
    if conflicts:
        raise typer.Exit(1)
