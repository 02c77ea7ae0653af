"""``harness list``, ``table``, ``check`` and ``explain``: the paper's numbers, ours, the verdicts, every setting."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import typer

from detector.errors import UsageError
from harness.cli.completion import rows_and_recipes, several
from harness.cli.options import (
    AsJson,
    BatchSizeOption,
    DataOption,
    FormatOption,
    OnlyProfileOption,
    ProfileOption,
    SetOption,
    SourceOption,
    TargetsArgument,
    TargetsOrAllArgument,
    print_json,
    put,
    refuse,
    refuse_two_forms,
)
from harness.console.layout import columns as terminal_columns


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("list", short_help="List tables, rows, profiles and recipes; or all finished runs.")(list_)
    app.command(short_help="Print tables: our numbers beside the paper's.")(table)
    app.command(short_help="Judge the paper's cells and claims by the records.")(check)
    app.command(short_help="Print every setting of a row with its source.")(explain)


def list_(
    runs: Annotated[
        bool, typer.Option("--runs", help="List every finished run instead, also those that fill no table's cell.")
    ] = False,
    profile: OnlyProfileOption = None,
    as_json: AsJson = False,
) -> None:
    """List tables, rows with their published numbers, profiles and recipes.

    With --runs: every finished evaluation, here and committed, with its rows or, after --set, with what was set; then
    files that are no whole records, and folders that 'harness run --fresh' moved aside.
    """
    if runs:
        from harness.registry.load import Registry
        from harness.report.evidence.listing import finished_runs, finished_runs_as_text

        if profile is not None:
            Registry().profile(profile)  # refuses an unknown name
        found = finished_runs(profile)
        if as_json:
            print_json(found)
        else:
            put(finished_runs_as_text(found, terminal_columns()))
        return
    if profile is not None:
        raise UsageError("--profile goes with --runs; tables, rows and recipes are listed for all profiles.")
    from harness.registry.load import Registry
    from harness.report.listing import registry_as_data, registry_as_text

    registry = Registry()
    if as_json:
        print_json(registry_as_data(registry))
    else:
        put(registry_as_text(registry, terminal_columns()))


def table(
    context: typer.Context,
    targets: TargetsArgument,
    profile: ProfileOption = "paper",
    fmt: FormatOption = "text",
    batch_size: BatchSizeOption = None,
    overrides: SetOption = None,
    data: DataOption = None,
    source: SourceOption = None,
    as_json: AsJson = False,
    notes: Annotated[
        Literal["all", "short", "none"] | None,
        typer.Option(
            "--notes",
            metavar="all|short|none",
            help="Notes under the table. Default: short in a terminal, none in LaTeX, else all.",
        ),
    ] = None,
    width: Annotated[
        Literal["column", "page"],
        typer.Option("--width", metavar="column|page", help="LaTeX: as wide as a column or a page of a paper."),
    ] = "page",
    layout: Annotated[
        Literal["paper", "both"],
        typer.Option(
            "--layout", metavar="paper|both", help="LaTeX: our numbers as the paper prints its own, or both beside it."
        ),
    ] = "both",
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            metavar="NAME,...",
            help="LaTeX: of n, ours, sd, paper, diff, verdict.",
            autocompletion=several(("n", "ours", "sd", "paper", "diff", "verdict")),
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="NAME,...",
            help="LaTeX: of AP, AP50, AP75, APS, APM, APL.",
            autocompletion=several(("AP", "AP50", "AP75", "APS", "APM", "APL")),
        ),
    ] = None,
) -> None:
    """Print tables, or rows of them, from the finished records: our numbers beside the paper's.

    While runs go on, each row says how far it is; --source committed shows finished ones alone. With --set or
    --batch-size: the numbers of runs with these options, which fill no cell of the paper's tables.
    """
    from harness.planning.selection import Selection
    from harness.registry.declarations import METRICS
    from harness.report.formats import check_format, render_tables
    from harness.report.typeset.options import COLUMNS, Look, parse_names
    from harness.report.views import table_views

    check_format(fmt)
    refuse_two_forms(context, fmt, as_json=as_json)
    fmt = "json" if as_json else fmt
    if fmt != "latex":
        refuse(context, ["width", "layout", "columns", "metrics"], "goes with --format latex alone.")
    if fmt in ("csv", "json"):
        refuse(context, ["notes"], f"does not go with {fmt}, which has data alone.")
    look = Look(
        terminal=terminal_columns(),
        notes=notes,
        width=width,
        layout=layout,
        columns=parse_names(columns, COLUMNS, "--columns") if columns is not None else None,
        metrics=parse_names(metrics, METRICS, "--metrics") if metrics is not None else METRICS,
    )
    views = table_views(Selection(targets, profile, overrides or [], data, batch_size, source=source))
    put(render_tables(views, fmt, look), exact=True)


def check(
    context: typer.Context,
    targets: TargetsOrAllArgument = None,
    profile: ProfileOption = "paper",
    fmt: FormatOption = "text",
    data: DataOption = None,
    source: SourceOption = None,
    as_json: AsJson = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Exit with 1 if a cell is not reproduced or a claim contradicted, and not provisionally."
        ),
    ] = False,
    looks: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Seeds per row at which you decided beforehand to look, such as 2,3,5."),
    ] = None,
) -> None:
    """Judge the cells and claims of the targets, as far as the profile's runs can decide them.

    Exits with 0 whatever the verdicts are, unless --strict is given. With --looks the tests at all of these numbers of
    seeds together keep 5% of false verdicts; without it only the one at a number that was fixed beforehand does. The
    text ends with the command that decides the next claim at the least cost.
    """
    from harness.audit.audit import audit
    from harness.planning.selection import Selection
    from harness.report.ending import ending
    from harness.report.formats import check_format, render_check
    from harness.report.typeset.options import Look
    from harness.report.views import judge
    from harness.verdicts.sequential import parse_looks

    check_format(fmt)
    refuse_two_forms(context, fmt, as_json=as_json)
    selection = Selection(targets or "all", profile, [], data, source=source)
    verdicts = judge(selection, parse_looks(looks) if looks is not None else ())
    if as_json or fmt in ("text", "json"):
        verdicts = replace(verdicts, audit=audit(selection).line)
    put(render_check(verdicts, "json" if as_json else fmt, Look(terminal=terminal_columns())), exact=True)
    if fmt == "text" and not as_json and (last := ending(verdicts, selection, terminal_columns())):
        put(f"\n{last}", exact=True)
    if strict and verdicts.failed:
        raise typer.Exit(1)


def explain(
    ref: Annotated[
        str,
        typer.Argument(
            metavar="ROW|RECIPE",
            help="A row, such as table2/L6, or a recipe, such as dr-r101-1x.",
            autocompletion=rows_and_recipes,
        ),
    ],
    profile: ProfileOption = "paper",
    batch_size: BatchSizeOption = None,
    overrides: SetOption = None,
    as_json: AsJson = False,
) -> None:
    """Print every setting of a row or a recipe with its source, and where the paper and its sources disagree."""
    from harness.report.explanation import explanation, explanation_as_text

    data = explanation(ref, profile, overrides or [], batch_size)
    if as_json:
        print_json(data)
    else:
        put(explanation_as_text(data, terminal_columns()))
