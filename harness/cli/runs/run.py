"""``harness run``: train, evaluate and record what is missing, here or on a Slurm cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from detector.errors import UsageError, WeightsError
from harness.cli.options import (
    BatchSizeOption,
    ClusterOption,
    DataOption,
    DryRunOption,
    ProfileOption,
    SeedsOption,
    SetOption,
    TargetArgument,
    WeightsOption,
    run_options,
    say,
)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(run)


def run(
    target: TargetArgument,
    profile: ProfileOption = "paper",
    seeds: SeedsOption = 1,
    batch_size: BatchSizeOption = None,
    overrides: SetOption = None,
    data: DataOption = None,
    weights: WeightsOption = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Only what failed or was lost, not what was never started.")
    ] = False,
    cluster: ClusterOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Train, evaluate and record what is missing of a target, on this machine's GPUs or CPU cores.

    With --cluster it is submitted to Slurm, and the command returns at once. Interrupted, or with a part that failed,
    the same command goes on from the last checkpoints; with everything done it answers at once.
    """
    from rich.console import Console

    from harness.cli.runs.failure_report import failure_lines
    from harness.cli.runs.submit import submit_runs
    from harness.console.runs_view import RunsView
    from harness.launch.assignments import assignments
    from harness.launch.interrupts import terminate_is_interrupt
    from harness.launch.local import make_slots, run_local
    from harness.launch.prepare import find_weights, prepare_data
    from harness.planning.selection import Selection, missing
    from harness.slurm.clusters import find_cluster
    from harness.status.observe import failed_ids
    from harness.status.text import ArgumentsFor

    selection = Selection(target, profile, overrides or [], data, batch_size)
    named = find_cluster(cluster) if cluster is not None else None
    if dry_run and named is None:
        raise UsageError("--dry-run shows what --cluster NAME would submit. For runs here, see 'harness plan'.")
    root = selection.data_root()
    planned = selection.plan(seeds, root=root)
    if batch_size is not None:
        say(f"With --batch-size {batch_size} these runs are not the paper's and fill no table's cell.")
    if overrides:
        say(f"With --set ({', '.join(overrides)}) these runs are not the paper's and fill no table's cell.")
    found: dict[Any, Path] = {}
    # A dry run downloads nothing; only where missing weights change what is trained must it look for them.
    needed = not dry_run or selection.profile.without_weights == "from_scratch"
    if needed and missing(planned, selection.store):
        try:
            found = find_weights(list(planned.trainings.values()), weights)
        except WeightsError as error:
            if selection.profile.without_weights == "stop" or weights is not None:
                raise
            say(f"{error}\nGoing on from scratch: nothing frozen, group norm; the records say 'not the paper's'.")
            planned = selection.plan(seeds, root=root, from_scratch=True)
    todo = missing(planned, selection.store)
    done = len(planned.trainings) - len(todo)
    say(f"{target}, profile {profile}: {len(planned.trainings)} runs, {done} done, {len(todo)} to do.")
    if retry_failed and todo:
        failed = failed_ids(planned, selection.store)
        todo = [train_id for train_id in todo if train_id in failed]
        say(f"--retry-failed: {len(todo)} of them failed or were lost, and are run again; the others are left alone.")
        if not todo:
            say("To run what is missing, give the same command without --retry-failed.")
            return
    if todo and named is not None:
        names = {item: _name(planned.refs_of(item), planned.trainings[item].seed) for item in todo}
        submit_runs(selection, planned, named, names, root=root, weights=found, dry_run=dry_run)
        return
    if todo:
        try:
            with terminate_is_interrupt():
                prepare_data(planned.data, root, say)
                notes = selection.notes(planned)
                jobs = [
                    item
                    for item in assignments(planned, selection.store, root=root, weights=found, notes=notes)
                    if item.train.id in todo
                ]
                slots = make_slots(selection.profile.execution, runs=len(jobs))
                names = {item: _name(planned.refs_of(item), planned.trainings[item].seed) for item in todo}
                say(f"{len(slots)} at a time, {_where(slots[0].gpus)}; in {selection.store.runs}")
                with RunsView(names, Console(stderr=True)) as view:
                    failures = run_local(jobs, slots, view)
        except KeyboardInterrupt:
            say("Interrupted; finished runs and checkpoints are kept. The same command goes on from there.")
            raise typer.Exit(130) from None
        if failures:
            context = ArgumentsFor(profile, run_options(overrides, batch_size, data), root, selection.store.runs)
            for line in failure_lines(failures, planned, context):
                say(line)
            if all(failure.stopped for failure in failures):
                say("Stopped; finished runs and checkpoints are kept. The same command goes on from there.")
                raise typer.Exit(130)
            say("Mend the cause and run the same command again: only what is missing is trained.")
            raise typer.Exit(1)
    say(f"Done. Next: harness table {target.split('/')[0]} --profile {profile}")


def _where(gpus: tuple[int, ...]) -> str:
    return f"on {len(gpus)} GPU{'s' if len(gpus) > 1 else ''} each" if gpus else "on the CPU"


def _name(refs: list[str], seed: int) -> str:
    return f"{' = '.join(refs)}, seed {seed}"
