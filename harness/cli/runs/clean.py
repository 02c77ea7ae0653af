"""``harness clean``: what the runs folder holds that nobody needs any more, and its removal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from harness.cli.options import AsJson, complete_profiles, complete_targets, print_json, put, refuse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.launch.clean.files import Item


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(short_help="List files of finished runs that nobody needs any more; with --yes remove them.")(clean)


def clean(
    context: typer.Context,
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TARGET",
            help="all, tables or rows: only what is of their runs alone. Default: the whole runs folder.",
            autocompletion=complete_targets,
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            "-p",
            help="With a target: its scale. Default: paper.",
            autocompletion=complete_profiles,
        ),
    ] = None,
    replaced: Annotated[
        bool,
        typer.Option("--replaced", help="Also folders that 'run --fresh' moved aside, with their weights and records."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what can go and the space that it frees: code snapshots that no job uses, files of submissions that have
    ended, and of finished runs the earlier checkpoints, TensorBoard pieces and what launchers left.

    Nothing is removed without --yes. Never: a record, final weights, a run's job, log and metrics, or anything of a run
    that is not done, waits, runs, or of which nobody knows.
    """
    from harness.folders import runs_folder
    from harness.launch.clean.files import find_items
    from harness.launch.clean.finished import RunsFolder
    from harness.launch.clean.remove import remove

    if not targets:
        refuse(context, ["profile"], "goes with a target: without one, the whole runs folder is cleaned.")
    runs = runs_folder()
    wanted = _ids(targets, profile or "paper") if targets else None
    items = find_items(RunsFolder(runs), wanted=wanted, replaced=replaced)
    removed = remove(runs, items, replaced=replaced) if yes and items else []
    if as_json:
        print_json(_as_data(str(runs), removed if yes else items, removed=yes))
        return
    for line in _lines(str(runs), removed if yes else items, removed=yes):
        put(line)
    if not yes and items:
        words = [*(targets or []), *(["--profile", profile] if profile else []), *(["--replaced"] if replaced else [])]
        put(f"Nothing was removed. To remove it: {' '.join(['harness', 'clean', *words, '--yes'])}")


def _ids(targets: list[str], profile: str) -> set[str]:
    """The runs of the targets that have a folder, of every seed."""
    from harness.planning.selection import Selection
    from harness.status.find import RunFinder

    found = RunFinder(Selection(targets, profile, [], None), seeds=0).find()
    return {known.run.root.name for known in found.runs if known.run is not None}


def _lines(runs: str, items: Sequence[Item], *, removed: bool) -> list[str]:
    from harness.launch.clean.files import Kind
    from harness.units import byte_size

    if not items:
        return [f"Nothing {'was removed' if removed else 'can go'} in {runs}."]
    lines = [f"{'Removed' if removed else 'What can go'} in {runs}:"]
    for kind in get_args(Kind):
        of_kind = [item for item in items if item.kind == kind]
        if of_kind:
            size, files = byte_size(sum(item.bytes for item in of_kind)), sum(item.files for item in of_kind)
            lines.append(f"  {kind:28}  {size:>10}  {files:>7,} file{'' if files == 1 else 's'}")
    size, files = byte_size(sum(item.bytes for item in items)), sum(item.files for item in items)
    return [*lines, f"  {'in all':28}  {size:>10}  {files:>7,} file{'' if files == 1 else 's'}"]


def _as_data(runs: str, items: Sequence[Item], *, removed: bool) -> dict[str, Any]:
    return {
        "runs_folder": runs,
        "removed": removed,
        "bytes": sum(item.bytes for item in items),
        "files": sum(item.files for item in items),
        "items": [
            {
                "kind": item.kind,
                "path": str(item.path),
                "training": item.run,
                "files": item.files,
                "bytes": item.bytes,
            }
            for item in items
        ],
    }
