"""The command line: experiments, from the registry to verdicts. The modules ``cli_*`` add their commands.

Everything slow is imported where it is used, so that ``--help`` and completion answer at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from detector.errors import HarnessError, UsageError, WeightsError
from harness import cli_bundle, cli_data, cli_model, cli_server, cli_status, cli_weights
from harness.cli_slurm import ClusterOption, DryRunOption
from harness.options import (
    AsJson,
    BatchSizeOption,
    DataOption,
    FormatOption,
    ProfileOption,
    SeedsOption,
    SetOption,
    TargetArgument,
    WeightsOption,
    print_json,
    say,
)

if TYPE_CHECKING:
    from harness.session import Session

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


@app.command()
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
    from harness.costs import parse_wall_time
    from harness.session import Session
    from harness.show import plan_as_data, plan_as_text

    session = Session(target, profile, overrides or [], data, batch_size)
    if budget is not None:
        _plan_budget(session, budget, chosen=seeds != 1 or wall_time is not None, as_json=as_json)
        return
    planned = session.plan(seeds)
    limit = parse_wall_time(wall_time) if wall_time is not None else None
    if as_json:
        print_json(plan_as_data(session, planned, limit))
    else:
        typer.echo(plan_as_text(session, planned, seeds, limit))


def _plan_budget(session: Session, budget: str, *, chosen: bool, as_json: bool) -> None:
    """chosen: whether --seeds or --wall-time was given too, which a budget leaves no room for."""
    from harness.budget import plan_budget
    from harness.show_costs import budget_as_data, budget_as_text

    if chosen or session.overrides or session.batch_size is not None:
        raise UsageError(
            "--budget chooses rows and seeds of the paper's own settings: leave --seeds, --wall-time, --set and "
            "--batch-size away. Then 'harness plan ROW --seeds N --wall-time TIME' says more of one row."
        )
    bought = plan_budget(session, budget)
    if as_json:
        print_json(budget_as_data(bought))
    else:
        typer.echo(budget_as_text(bought))


@app.command()
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

    from harness.cli_slurm import submit_runs
    from harness.clusters import find_cluster
    from harness.failure_report import failure_lines
    from harness.launch import make_slots, run_local, terminate_is_interrupt
    from harness.prepare import assignments, find_weights, prepare_data
    from harness.progress import RunsView
    from harness.session import Session, missing
    from harness.status import ContextOf, failed_ids

    session = Session(target, profile, overrides or [], data, batch_size)
    named = find_cluster(cluster) if cluster is not None else None
    if dry_run and named is None:
        raise UsageError("--dry-run shows what --cluster NAME would submit. For runs here, see 'harness plan'.")
    root = session.data_root()
    planned = session.plan(seeds, root=root)
    if batch_size is not None:
        say(f"With --batch-size {batch_size} these runs are not the paper's and fill no table's cell.")
    if overrides:
        say(f"With --set ({', '.join(overrides)}) these runs are not the paper's and fill no table's cell.")
    found: dict[Any, Path] = {}
    # A dry run downloads nothing; only where missing weights change what is trained must it look for them.
    needed = not dry_run or session.profile.without_weights == "from_scratch"
    if needed and missing(planned, session.store):
        try:
            found = find_weights(list(planned.trainings.values()), weights)
        except WeightsError as error:
            if session.profile.without_weights == "stop" or weights is not None:
                raise
            say(f"{error}\nGoing on from scratch: nothing frozen, group norm; the records say 'not the paper's'.")
            planned = session.plan(seeds, root=root, from_scratch=True)
    todo = missing(planned, session.store)
    done = len(planned.trainings) - len(todo)
    say(f"{target}, profile {profile}: {len(planned.trainings)} runs, {done} done, {len(todo)} to do.")
    if retry_failed and todo:
        failed = failed_ids(planned, session.store)
        todo = [train_id for train_id in todo if train_id in failed]
        say(f"--retry-failed: {len(todo)} of them failed or were lost, and are run again; the others are left alone.")
        if not todo:
            say("To run what is missing, give the same command without --retry-failed.")
            return
    if todo and named is not None:
        names = {item: _name(planned.refs_of(item), planned.trainings[item].seed) for item in todo}
        submit_runs(session, planned, named, names, root=root, weights=found, dry_run=dry_run)
        return
    if todo:
        try:
            with terminate_is_interrupt():
                prepare_data(planned.data, root, say)
                notes = session.notes(planned)
                jobs = [
                    item
                    for item in assignments(planned, session.store, root=root, weights=found, notes=notes)
                    if item.train.id in todo
                ]
                slots = make_slots(session.profile.execution, runs=len(jobs))
                names = {item: _name(planned.refs_of(item), planned.trainings[item].seed) for item in todo}
                say(f"{len(slots)} at a time, {_where(slots[0].gpus)}; in {session.store.runs}")
                with RunsView(names, Console(stderr=True)) as view:
                    failures = run_local(jobs, slots, view)
        except KeyboardInterrupt:
            say("Interrupted; finished runs and checkpoints are kept. The same command goes on from there.")
            raise typer.Exit(130) from None
        if failures:
            context = ContextOf(profile, cli_status.run_options(overrides, batch_size, data), root, session.store.runs)
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
    as_json: AsJson = False,
) -> None:
    """Check this machine: versions, cores, GPUs, folders, data, weights. Exits with 1 if something needed fails."""
    from harness.doctor import examine

    findings = examine(data)
    if as_json:
        print_json(findings)
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            typer.echo(f"{finding.state:5} {finding.name:{width}}  {finding.text}")
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
