"""``harness status``, ``logs`` and ``cancel``: what runs do, what they print, and how to stop them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detector.errors import UsageError
from detector.storage.shown import shown
from harness.cli.options import (
    AsJson,
    BatchSizeOption,
    DataOption,
    ProfileOption,
    SeedOption,
    SetOption,
    TargetsArgument,
    complete_targets,
    print_json,
    put,
    refuse,
    run_options,
    say,
)
from harness.failures import log_tail
from harness.units import MAX_SEEDS

if TYPE_CHECKING:
    from detector.runs.folder import RunDir
    from harness.planning.selection import Selection
    from harness.status.find import FoundRuns, RunFinder
    from harness.status.observe import Observed


WATCH_SECONDS = 2.0


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
            help="all, tables or rows. Default: every run of the profile that was ever started.",
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
    for ten minutes.
    """
    from harness.status.observe import observe_all
    from harness.status.text import ArgumentsFor, next_commands, state_lines, states_as_data, summary_lines

    if watch and as_json:
        raise UsageError("--watch draws on a terminal again and again, --json prints once. Give one of them.")
    if not targets:
        refuse(context, ["seeds"], "goes with a target: without one, the runs that were ever started are listed.")
    selection, finder = _finder(targets, profile, overrides, data, batch_size, seeds=seeds if targets else 0)
    words = ArgumentsFor(profile, run_options(overrides, batch_size, data), data, selection.store.runs)

    def look() -> tuple[FoundRuns, list[Observed]]:
        found = finder.find()
        return found, observe_all(found, selection.store, profile)

    found, observed = look()
    if as_json:
        print_json(states_as_data(observed, found))
        return
    interrupted = False
    if watch and observed:
        try:
            observed = _watch(look, observed)
        except KeyboardInterrupt:
            interrupted = True
            found, observed = look()
    after = [*summary_lines(observed, found, selection.store.runs, profile), *next_commands(observed, words)]
    for line in [*state_lines(observed), *after]:
        put(line)
    if interrupted:
        raise typer.Exit(130)


def _watch(look: Callable[[], tuple[FoundRuns, list[Observed]]], first: list[Observed]) -> list[Observed]:
    """Redraw while anything waits or runs; without a terminal, print the lines of runs whose state changed."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from harness.status.text import state_lines

    console = Console()
    if not console.is_terminal:
        last: dict[object, tuple[str, int | None]] = {}
        for observed in _looks(look, first):
            for item, line in zip(observed, state_lines(observed), strict=True):
                progress = item.state.progress
                mark = (item.state.kind, None if progress is None else int(progress * 10))
                if last.get(item.known.key) != mark:
                    last[item.known.key] = mark
                    put(line)
        return observed
    with Live(console=console, auto_refresh=False, transient=True) as live:
        for observed in _looks(look, first):
            live.update(Text(shown("\n".join(state_lines(observed))), no_wrap=True, overflow="ellipsis"), refresh=True)
    return observed


def _looks(look: Callable[[], tuple[FoundRuns, list[Observed]]], observed: list[Observed]) -> Iterator[list[Observed]]:
    """The first look, then one every ``WATCH_SECONDS``, until two in a row find that nothing waits or runs.

    One is not enough: a launcher that has ended one run has not started the next for a moment.
    """
    from harness.status.observe import is_over

    quiet = 0
    while True:
        yield observed
        quiet = quiet + 1 if is_over(observed) else 0
        if quiet == 2:
            return
        time.sleep(WATCH_SECONDS)
        _, observed = look()


def logs(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="RUN", help="TABLE/ROW, a training's id or its first digits, or a run's folder.")
    ],
    profile: ProfileOption = "paper",
    seed: SeedOption = 0,
    batch_size: BatchSizeOption = None,
    overrides: SetOption = None,
    data: DataOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print what is added, until the run ends.")] = False,
    rank: Annotated[
        int | None, typer.Option("--rank", min=0, help="Instead of the log: what the process of this rank printed.")
    ] = None,
    num_lines: Annotated[int, typer.Option("--lines", min=0, help="How many lines from the end; 0 for all.")] = 50,
) -> None:
    """Print a run's log or, with --rank, what one of its processes printed."""
    from harness.status import logs as run_logs
    from harness.status.observe import look_at_queue, see
    from harness.status.state import LIVING, decide

    run = _find_run(name, profile, seed, overrides, data, batch_size)
    if "/" not in name or (Path(name) == run.root and Path(name).is_dir()):
        other = ("profile", "seed", "batch_size", "overrides", "data")
        refuse(context, other, f"chooses among the runs of a row; {name} is one run. Leave it out.")

    def is_living() -> bool:
        return decide(see(run, (), look_at_queue(run.root.parent)), time.time()).kind in LIVING

    def path() -> Path | None:
        if rank is None and (run.log.exists() or is_living()):
            return run.log
        return run_logs.output(run, rank or 0)

    where = path()
    if where is None or not where.exists():
        known = ", ".join(map(str, run_logs.outputs(run))) or "none"
        if not (follow and is_living()):
            what = "log" if rank is None else f"output of rank {rank} (there are of: {known})"
            raise UsageError(f"{run.root} has no {what} yet. For its state: harness status; to wait for it: -f.")
    elif rank is None and where != run.log:
        say(f"It ended before its log began; this is what it printed ({where}):")
    size = where.stat().st_size if where is not None and where.exists() else 0
    if where is not None:
        put(log_tail.tail(where, num_lines), nl=False)
    if follow:
        try:
            run_logs.follow(path, size, _seldom(lambda: not is_living()), lambda text: put(text, nl=False))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def _seldom(ended: Callable[[], bool]) -> Callable[[], bool]:
    """The same answer, but asked for every two seconds only: each question may go to Slurm's queue."""
    asked = -WATCH_SECONDS

    def answer() -> bool:
        nonlocal asked
        if time.monotonic() - asked < WATCH_SECONDS:
            return False
        asked = time.monotonic()
        return ended()

    return answer


def _find_run(
    name: str, profile: str, seed: int, overrides: list[str] | None, data: Path | None, batch_size: int | None
) -> RunDir:
    from detector.runs.folder import RunDir
    from harness.folders import runs_folder
    from harness.status.find import by_id

    folder = RunDir(Path(name))
    if name.strip() and (folder.job.exists() or folder.submitit.is_dir()):
        return folder
    if re.fullmatch(r"[0-9a-f]{3,16}", name):
        return by_id(runs_folder(), name)
    if "/" not in name:
        raise UsageError(f"{name!r} is no run: give TABLE/ROW, at least 3 digits of a training's id, or its folder.")
    _, finder = _finder([name], profile, overrides, data, batch_size, seeds=0)
    found = [known for known in finder.find().runs if known.seed == seed and known.run is not None]
    if not found:
        raise UsageError(
            f"{name}, seed {seed}, was never started at profile {profile}. "
            f"Start it: harness run {name} --profile {profile} --seeds {seed + 1}"
        )
    if len(found) > 1:
        ids = ", ".join(known.run.root.name for known in found if known.run is not None)
        raise UsageError(f"{name}, seed {seed}, has {len(found)} runs (other data, or from scratch): {ids}. Give one.")
    assert found[0].run is not None
    return found[0].run


def cancel(
    targets: TargetsArgument,
    profile: ProfileOption = "paper",
    batch_size: BatchSizeOption = None,
    overrides: SetOption = None,
    data: DataOption = None,
) -> None:
    """Ask the targets' runs, here and on Slurm, of every seed, to save and stop; 'harness run' resumes them.

    Waiting jobs leave the queue. A 'harness run' that is going on starts no more runs of the targets; its other runs go
    on.
    """
    from harness.launch.cancel import note_cancelled, stop_runs
    from harness.slurm.queue import cancel_queued

    selection, finder = _finder(targets, profile, overrides, data, batch_size, seeds=1)
    found = [known for known in finder.find().runs if known.run is not None]
    if selection.store.runs.is_dir():
        note_cancelled(selection.store.runs, [*finder.trainings, *(known.jobs[0].train for known in found)])
    names = {known.run.root: known.name for known in found if known.run is not None}
    queued = cancel_queued(selection.store.runs, {root.name: name for root, name in names.items()}, say)
    living = stop_runs({root: name for root, name in names.items() if root.name not in queued}, say)
    if not queued and not living:
        what = f"Nothing of {selection.target}, profile {profile}, runs here or waits in a queue."
        say(f"{what} See: harness status --profile {profile}")


def _finder(
    targets: list[str] | None,
    profile: str,
    overrides: list[str] | None,
    data: Path | None,
    batch_size: int | None,
    *,
    seeds: int,
) -> tuple[Selection, RunFinder]:
    """targets: None for all rows of all tables."""
    from harness.planning.selection import Selection
    from harness.status.find import RunFinder

    selection = Selection(targets or "all", profile, overrides or [], data, batch_size)
    if not targets:
        selection.refs = [ref for table in selection.registry.tables.values() for ref in table.refs(profile)]
    return selection, RunFinder(selection, seeds=seeds)
