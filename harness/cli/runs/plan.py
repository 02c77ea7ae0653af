"""``harness plan``: the trainings of a target, their cost, and what a budget is best spent on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import completion
from harness.cli.options import (
    AsJson,
    BatchSizeOption,
    DataOption,
    ProfileOption,
    SeedsOption,
    SetOption,
    TargetsArgument,
    print_json,
    put,
    refuse,
)
from harness.console import layout

if TYPE_CHECKING:
    from harness.planning.selection import Selection


BUDGET_ALONE = (
    "cannot be given with a budget: --budget chooses rows and seeds of the paper's own settings: leave --seeds, "
    "--wall-time, --set and --batch-size out. For more about one row: harness plan ROW --seeds N --wall-time TIME"
)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(short_help="Show the trainings of a target and what they cost.")(plan)


def plan(
    context: typer.Context,
    targets: TargetsArgument,
    profile: ProfileOption = "paper",
    seeds: SeedsOption = 1,
    batch_size: BatchSizeOption = None,
    overrides: SetOption = None,
    data: DataOption = None,
    wall_time: Annotated[
        str | None,
        typer.Option(
            "--wall-time", metavar="TIME", help="How long a job may run at a time, such as 4h: counts the requeues."
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="HOURS", help="Device-hours, such as 400gpuh: choose the rows and seeds to train."),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(
            "--gpus",
            metavar="NxKIND",
            help="The GPUs to plan for, such as 8xH100 or 1xA100.",
            autocompletion=completion.gpus,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the trainings that targets need, each once: which are done, their cost, what they can show.

    A cost was measured on finished runs, was extrapolated from measurements on other GPUs or of other settings, was
    stated by others, or is unknown; with --gpus each rule of an extrapolation is printed. With --budget: which rows to
    train with how many seeds, so that as many claims as possible are decided.
    """
    from harness.planning.costs import parse_wall_time
    from harness.planning.selection import Selection
    from harness.report.plan import plan_as_data, plan_as_text

    selection = Selection(targets, profile, overrides or [], data, batch_size)
    if budget is not None:
        refuse(context, ("seeds", "wall_time", "overrides", "batch_size"), BUDGET_ALONE)
        _plan_budget(selection, budget, gpus, as_json=as_json)
        return
    planned = selection.plan(seeds)
    limit = parse_wall_time(wall_time) if wall_time is not None else None
    wanted = selection.gpus(gpus)
    if as_json:
        print_json(plan_as_data(selection, planned, limit, wanted))
    else:
        put(plan_as_text(selection, planned, seeds, limit, wanted, layout.columns()))


def _plan_budget(selection: Selection, budget: str, gpus: str | None, *, as_json: bool) -> None:
    from harness.planning.budget import plan_budget
    from harness.report.costs import budget_as_data, budget_as_text

    bought = plan_budget(selection, budget, selection.gpus(gpus))
    if as_json:
        print_json(budget_as_data(bought))
    else:
        put(budget_as_text(bought, layout.columns()))
