"""The command line: experiments, from the registry to verdicts. The modules ``cli_*`` add their commands.

Everything slow is imported where it is used, so that ``--help`` and completion answer at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from detector.errors import HarnessError, UsageError
from harness import cli_bundle, cli_data, cli_model, cli_plan, cli_run, cli_server, cli_status, cli_weights
from harness.cli_slurm import CheckedClusterOption, WaitOption, examine_named_cluster
from harness.options import (
    AsJson,
    BatchSizeOption,
    DataOption,
    FormatOption,
    ProfileOption,
    SetOption,
    TargetArgument,
    print_json,
    say,
)

app = typer.Typer(
    name="harness",
    help="Reproduces the tables and claims of 'DR Loss: Improving Object Detection by Distributional Ranking'.\n\n"
    "Start with: harness run table2 --profile tiny; then harness table table2 --profile tiny.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List tables, rows with their published numbers, profiles and recipes."""
    from harness.registry import Registry
    from harness.show import registry_as_data, registry_as_text

    registry = Registry()
    if as_json:
        print_json(registry_as_data(registry))
    else:
        typer.echo(registry_as_text(registry))


cli_plan.add_to(app)
cli_run.add_to(app)


@app.command()
def table(
    target: TargetArgument,
    profile: ProfileOption = "paper",
    fmt: FormatOption = "text",
    data: DataOption = None,
    as_json: AsJson = False,
) -> None:
    """Render a table, or all four, from the finished records: our numbers, the paper's, and in what they differ."""
    from harness.render import check_format, render_tables
    from harness.session import Session, table_views

    check_format(fmt)
    views = table_views(Session(target, profile, [], data))
    typer.echo(render_tables(views, "json" if as_json else fmt))


@app.command()
def check(
    target: TargetArgument = "all",
    profile: ProfileOption = "paper",
    fmt: FormatOption = "text",
    data: DataOption = None,
    as_json: AsJson = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if a cell is not reproduced or a claim is contradicted.")
    ] = False,
) -> None:
    """Give verdicts on the cells and claims of a target, as far as the profile can decide them.

    Exits with 0 whatever the verdicts are, unless --strict is given.
    """
    from harness.render import check_format, render_check
    from harness.session import Session, judge

    check_format(fmt)
    verdicts = judge(Session(target, profile, [], data))
    typer.echo(render_check(verdicts, "json" if as_json else fmt))
    if strict and verdicts.failed:
        raise typer.Exit(1)


@app.command()
def explain(
    ref: Annotated[str, typer.Argument(metavar="TABLE/ROW", help="A row, such as table2/L6.")],
    profile: ProfileOption = "paper",
    batch_size: BatchSizeOption = None,
    overrides: SetOption = None,
    as_json: AsJson = False,
) -> None:
    """Print every setting of a row with its source, and where the paper and its sources disagree."""
    from harness.show import explanation, explanation_as_text

    data = explanation(ref, profile, overrides or [], batch_size)
    if as_json:
        print_json(data)
    else:
        typer.echo(explanation_as_text(data))


@app.command()
def collect(
    profile: Annotated[str | None, typer.Option(help="Only this profile's records.")] = None,
) -> None:
    """Copy new records from the runs folder to the results folder; a different one there is never overwritten."""
    from harness.results import Store, collect, results_folder, runs_folder

    written, conflicts = collect(Store(runs_folder(), results_folder()), profile)
    say(f"{len(written)} new records in {results_folder() / 'records'}")
    for conflict in conflicts:
        say(f"conflict: {conflict}")
    if conflicts:
        raise typer.Exit(1)


@app.command()
def schema(
    kind: Annotated[str, typer.Argument(help="table, recipe, profile, claims, ledger or cluster.")],
    out: Annotated[Path | None, typer.Option(help="Write to this file instead of the screen.")] = None,
) -> None:
    """Print the JSON Schema of an experiment file, for editors that check YAML."""
    from harness.clusters import Cluster
    from harness.declarations import FILE_KINDS

    kinds = {**FILE_KINDS, "cluster": Cluster}
    if kind not in kinds:
        raise UsageError(f"Unknown kind of file {kind!r}. Known: {', '.join(kinds)}.")
    text = msgspec.json.format(msgspec.json.encode(msgspec.json.schema(kinds[kind])), indent=2).decode()
    if out is None:
        typer.echo(text)
    else:
        out.write_text(text + "\n", encoding="utf-8")


@app.command()
def doctor(
    data: DataOption = None,
    cluster: CheckedClusterOption = None,
    wait: WaitOption = None,
    as_json: AsJson = False,
) -> None:
    """Check this machine: versions, cores, GPUs, folders, data, weights. Exits with 1 if something needed fails.

    With --cluster: check that cluster instead, by one job of a few minutes on at most two nodes.
    """
    from harness.doctor import examine

    if cluster is not None:
        findings = examine_named_cluster(cluster, data, wait)
    elif wait is not None:
        raise UsageError("--wait is for --cluster NAME: how long the job of the check may wait in the queue.")
    else:
        findings = examine(data)
    if as_json:
        print_json(findings)
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            text = finding.text.replace("\n", f"\n{'':{width + 8}}")
            typer.echo(f"{finding.state:5} {finding.name:{width}}  {text}")
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


cli_model.add_to(app)
cli_server.add_to(app)
cli_status.add_to(app)
app.add_typer(cli_bundle.app, name="bundle")
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_weights.app, name="weights")


def main() -> None:
    """Entry point: a HarnessError is one message on stderr and exit code 2, never a traceback.

    So is what the operating system refuses (a full disk, a folder that may not be written), with exit code 1.
    """
    try:
        app()
    except HarnessError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except BrokenPipeError:  # the reader of a pipe went away: nobody is left to tell
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
