"""``harness plan``: what a target takes, what it costs, and what a budget should buy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from detector.errors import UsageError
from harness.cli.options import (
    AsJson,
    BatchSizeOption,
    DataOption,
    ProfileOption,
    SeedsOption,
    SetOption,
    TargetArgument,
    print_json,
)

if TYPE_CHECKING:
    from harness.planning.selection import Selection


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(plan)


def plan(
    target: TargetArgument,
    profile: ProfileOption = "paper",
    seeds: SeedsOption = 1,
    batch_size: BatchSizeOption = None,
    overrides: SetOption = None,
    data: DataOption = None,
    wall_time: Annotated[
        str | None, typer.Option("--wall-time", metavar="TIME", help="A limit a start, such as 4h: counts requeues.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="HOURS", help="Device-hours, such as 400gpuh: choose the rows and seeds for the claims."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the trainings that a target needs after deduplication, which are done, what they cost and can resolve.

    Each cost is measured on finished runs, stated by others, or unknown. With --budget: which rows to train, and how
    often, so that the most claims are decided.
    """
    from harness.planning.costs import parse_wall_time
    from harness.planning.selection import Selection
    from harness.report.plan import plan_as_data, plan_as_text

    selection = Selection(target, profile, overrides or [], data, batch_size)
    if budget is not None:
        _plan_budget(selection, budget, chosen=seeds != 1 or wall_time is not None, as_json=as_json)
        return
    planned = selection.plan(seeds)
    limit = parse_wall_time(wall_time) if wall_time is not None else None
    if as_json:
        print_json(plan_as_data(selection, planned, limit))
    else:
        typer.echo(plan_as_text(selection, planned, seeds, limit))


def _plan_budget(selection: Selection, budget: str, *, chosen: bool, as_json: bool) -> None:
    """chosen: whether --seeds or --wall-time was given too, which a budget leaves no room for."""
    from harness.planning.budget import plan_budget
    from harness.report.costs import budget_as_data, budget_as_text

    if chosen or selection.overrides or selection.batch_size is not None:
        raise UsageError(
            "--budget chooses rows and seeds of the paper's own settings: leave --seeds, --wall-time, --set and "
            "--batch-size away. Then 'harness plan ROW --seeds N --wall-time TIME' says more of one row."
        )
    bought = plan_budget(selection, budget)
    if as_json:
        print_json(budget_as_data(bought))
    else:
        typer.echo(budget_as_text(bought))
