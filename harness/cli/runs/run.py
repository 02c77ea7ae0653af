"""``harness run``: train, evaluate and record what is missing, here or on a Slurm cluster."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import (
    BatchSizeOption,
    ClusterOption,
    DataOption,
    DryRunOption,
    ProfileOption,
    SeedsOption,
    SetOption,
    TargetsArgument,
    WeightsOption,
    run_options,
    say,
)

if TYPE_CHECKING:
    from harness.launch.run import RunResult


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(short_help="Train, evaluate and record what is missing.")(run)


def run(
    targets: TargetsArgument,
    profile: ProfileOption = "paper",
    seeds: SeedsOption = 1,
    batch_size: BatchSizeOption = None,
    overrides: SetOption = None,
    data: DataOption = None,
    weights: WeightsOption = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Only what failed or was lost, not what never started.")
    ] = False,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Train all of it anew; old run folders are kept as <id>.replaced-<time>."),
    ] = False,
    cluster: ClusterOption = None,
    stay: Annotated[
        bool,
        typer.Option(
            "--stay", help="With --cluster: submit what a limit held back or what was lost, until all has ended."
        ),
    ] = False,
    dry_run: DryRunOption = False,
) -> None:
    """Train, evaluate and record what is missing of the targets, on this machine's GPUs or CPU cores.

    With --cluster the runs are submitted to Slurm, and the command returns at once. After an interruption or a failure
    the same command goes on from the last checkpoints. What is done is not trained again, unless with --fresh; where
    its weights, annotations or images have changed since, the command says so and exits with 2.
    """
    from harness.cli.runs.submit import print_dry_run, print_submission
    from harness.launch.run import Request, run_target

    request = Request(
        target=tuple(targets),
        profile=profile,
        seeds=seeds,
        batch_size=batch_size,
        overrides=tuple(overrides or ()),
        data=data,
        weights=weights,
        retry_failed=retry_failed,
        fresh=fresh,
        cluster=cluster,
        stay=stay,
        dry_run=dry_run,
    )
    try:
        result = run_target(request, say)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if result.dry_run is not None:
        print_dry_run(result, result.dry_run)
    elif result.submission is not None:
        print_submission(result, result.submission)
    elif result.failed or result.stopped:
        _end_with_failures(result, run_options(overrides, batch_size, data))
    elif result.left and not result.trained:
        say("To run what is missing, give the same command without --retry-failed.")
    else:
        _end_with_results(result, shlex.join(run_options(overrides, batch_size, data)))


def _end_with_results(result: RunResult, options: str) -> None:
    """Say the AP of what was trained (of what was there, where nothing was), and which command shows these numbers."""
    from harness.launch.results import result_lines

    for line in result_lines(result):
        say(line)
    profile, departs = result.plan.profile.name, "--set" in options or "--batch-size" in options
    shown = result.target if departs else result.tables
    say(f"Done. Next: harness table {shown} --profile {profile}{f' {options}' if departs else ''}")


def _end_with_failures(result: RunResult, options: tuple[str, ...]) -> None:
    """Say what failed and what to do. Exits with 130 if all of them were only stopped, else with 1."""
    from harness.cli.runs.failure_report import failure_lines
    from harness.status.text import ArgumentsFor

    arguments = ArgumentsFor(result.plan.profile.name, options, result.data_root, result.runs)
    for line in failure_lines([*result.stopped, *result.failed], result.plan, arguments):
        say(line)
    if not result.failed:
        say("Stopped; finished runs and checkpoints are kept. The same command goes on from there.")
        raise typer.Exit(130)
    say("Mend the cause and run the same command again: only what is missing is trained.")
    raise typer.Exit(1)
