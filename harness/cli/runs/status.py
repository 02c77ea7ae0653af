"""``harness status`` and ``cancel``: what runs do, and how to stop them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from detector.errors import UsageError
from detector.runs.folder import RunDir
from harness.cli.options import (
    AsJson,
    BatchSizeOption,
    DataOption,
    ProfileOption,
    SetOption,
    TargetsArgument,
    complete_targets,
    print_json,
    put,
    refuse,
    run_options,
    say,
)
from harness.cli.runs.finding import finder_of, named_runs, run_names
from harness.cli.runs.logs import logs
from harness.cli.runs.watch import Look, watch_runs
from harness.console import layout
from harness.units import MAX_SEEDS


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("status", short_help="Show what each run does: waiting, running, done, failed.")(status)
    app.command("logs", short_help="Print a run's log.")(logs)
    app.command("cancel", short_help="Ask runs here and on Slurm to save and stop.")(cancel)


def status(
    context: typer.Context,
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TARGET",
            help="all, tables or rows. Default: every run of the profile that was ever started or submitted.",
            autocompletion=complete_targets,
        ),
    ] = None,
    profile: ProfileOption = "paper",
    seeds: Annotated[
        int,
        typer.Option(
            "--seeds", "-n", min=1, max=MAX_SEEDS, help="With a target: list this many seeds, also those never started."
        ),
    ] = 1,
    batch_size: BatchSizeOption = None,
    overrides: SetOption = None,
    data: DataOption = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Look again every two seconds, until nothing waits or runs.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the state of each run: not started, waiting, running with its ETA, stopped, done with its AP, or failed.

    A submitted run is judged by Slurm's queue, a run on another machine by its heartbeat: 'lost?' means no heartbeat
    for ten minutes, 'no progress' that its heartbeat got no further for much longer than its own pace allows, and
    'unknown' that its queue does not answer, or not here.
    """
    from harness.launch.lease import leased
    from harness.status.observe import Queue, observe_all
    from harness.status.text import (
        ArgumentsFor,
        next_commands,
        state_lines,
        states_as_data,
        summary_lines,
        words_of_states,
    )

    if watch and as_json:
        raise UsageError("--watch draws on a terminal again and again, --json prints once. Give one of them.")
    if not targets:
        refuse(
            context,
            ["seeds"],
            "goes with a target: without one, the runs that were ever started or submitted are listed.",
        )
    selection, finder = finder_of(targets, profile, overrides, data, batch_size, seeds=seeds if targets else 0)
    runs = selection.store.runs
    words, queue = ArgumentsFor(profile, run_options(overrides, batch_size, data), data, runs), Queue(runs)

    def look() -> Look:
        to_do = leased(runs)
        found = finder.find(begun_soon=() if targets else to_do)
        observed = observe_all(found, selection.store, profile, queue=queue, leased=to_do)
        names = {known.run.root.name for known in found.runs if known.run is not None}
        # Without a target, and with a folder of data that was not named, it cannot be told whose they are.
        return Look(found, observed, launching=bool(to_do & names if targets else to_do))

    now = look()
    if as_json:
        print_json(states_as_data(now.observed, now.found))
        return
    interrupted = False
    if watch and (now.observed or now.launching):
        try:
            now = watch_runs(look, now)
        except KeyboardInterrupt:
            interrupted = True
            now = look()
    after = [*summary_lines(now.observed, now.found, runs, profile), *next_commands(now.observed, words)]
    lines = state_lines(now.observed, layout.columns())
    for line in [*lines, *after, *filter(None, [words_of_states(lines)])]:
        put(line)
    if interrupted:
        raise typer.Exit(130)


def cancel(
    targets: TargetsArgument,
    profile: ProfileOption = "paper",
    batch_size: BatchSizeOption = None,
    overrides: SetOption = None,
    data: DataOption = None,
) -> None:
    """Ask the targets' runs, here and on Slurm, of every seed, to save and stop; 'harness run' resumes them.

    Waiting jobs leave the queue. A 'harness run' that is going on starts no more runs of the targets; its other runs go
    on. A target may also be one run: a training's id or its first digits, its Slurm job (17_3, or 17 for all runs of an
    array), or a run's folder.
    """
    from harness.registry.load import Registry

    tables = Registry().tables  # the name of one may look like an id
    named = {name: found for name in targets if name not in tables and (found := named_runs(name)) is not None}
    rows = [name for name in targets if name not in named]
    wanted = {run.root: name for runs in named.values() for run, name in run_names(runs).items()}
    if rows or not named:
        wanted |= _of_rows(rows, profile, overrides, data, batch_size)
    stopped = [_stop(folder, names) for folder, names in _by_folder(wanted).items()]
    if not any(stopped):
        what = f"Nothing of {' '.join(targets)}, profile {profile}, runs here or waits in a queue."
        say(f"{what} See: harness status --profile {profile}")


def _of_rows(
    rows: list[str], profile: str, overrides: list[str] | None, data: Path | None, batch_size: int | None
) -> dict[Path, str]:
    """By folder, what to call the runs of these tables and rows; launchers are told to start no more of them."""
    from harness.launch.cancel import note_cancelled

    selection, finder = finder_of(rows, profile, overrides, data, batch_size, seeds=1)
    found = [known for known in finder.find().runs if known.run is not None]
    if selection.store.runs.is_dir():
        note_cancelled(selection.store.runs, [*finder.trainings, *(known.jobs[0].train for known in found)])
    return {known.run.root: known.name for known in found if known.run is not None}


def _by_folder(names: dict[Path, str]) -> dict[Path, dict[Path, str]]:
    """The same for each runs folder: a run may be named by its own."""
    folders: dict[Path, dict[Path, str]] = {}
    for root, name in names.items():
        folders.setdefault(root.parent, {})[root] = name
    return folders


def _stop(folder: Path, names: dict[Path, str]) -> bool:
    """Stop the runs of one runs folder. Returns whether any of them was queued or alive."""
    from harness.launch.cancel import stop_runs
    from harness.slurm.cancel import cancel_queued
    from harness.store.cancelled import note_cancelled_run

    cancelled, left = cancel_queued(folder, {root.name: name for root, name in names.items()}, say)
    for train_id in cancelled:
        note_cancelled_run(RunDir(folder / train_id))
    living = stop_runs({root: name for root, name in names.items() if root.name not in cancelled | left}, say)
    return bool(cancelled or left) or living
