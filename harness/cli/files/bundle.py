"""``harness bundle``: records and weights from several machines or people, brought together in one place."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detector.storage.outputs import claim_file
from harness.cli import completion
from harness.cli.options import AsJson, ForceOption, OnlyProfileOption, print_json, put, say

if TYPE_CHECKING:
    from harness.bundles.merge import Merge, Part

app = typer.Typer(
    help="Carry records and weights between machines in one file.\n\n"
    "The hashes in a bundle reveal damage and careless edits. They do not show who made it, nor that its numbers are "
    "honest: whoever changes a record on purpose can also write the hash that fits.",
    no_args_is_help=True,
)


@app.command(short_help="Pack finished records into one file.")
def export(
    out: Annotated[Path, typer.Argument(metavar="OUT.zip", help="The file to write.")],
    profile: OnlyProfileOption = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            help="Only the rows of this target: all, table2, table2/L6.",
            autocompletion=completion.targets,
        ),
    ] = None,
    checkpoints: Annotated[
        bool,
        typer.Option("--checkpoints", help="Also the final weights of those trainings that are in the runs folder."),
    ] = False,
    force: ForceOption = False,
    as_json: AsJson = False,
) -> None:
    """Pack the finished records of the results and runs folders, each evaluation once.

    The same content gives the same bytes; nothing in it says who packed it or where. Where runs and results have
    different numbers for one evaluation, the results' record is packed. A file that is no record that can be used is
    named and left out. In both cases the command exits with 1.
    """
    from harness.bundles.own_weights import check_packed
    from harness.bundles.pack import evaluations_of, gather, write_bundle
    from harness.folders import results_folder, runs_folder
    from harness.registry.load import Registry
    from harness.store.records import Store

    claim_file(out, force=force)
    if profile is not None:
        Registry().profile(profile)  # refuses an unknown name before anything is read
    store = Store(runs_folder(), results_folder())
    eval_ids = evaluations_of(store, target, profile) if target is not None else None
    contents = gather(store, profile=profile, eval_ids=eval_ids, with_weights=checkpoints)
    check_packed(contents)
    write_bundle(out, contents)
    trainings = {item.record.train_id for item in contents.records}
    size = out.stat().st_size
    if as_json:
        print_json(
            {
                "file": str(out),
                "bytes": size,
                "records": [item.record.eval_id for item in contents.records],
                "weights": list(contents.weights),
                "conflicts": contents.conflicts,
                "set_aside": contents.set_aside,
            }
        )
    else:
        profiles = Counter(item.record.profile for item in contents.records)
        counted = ", ".join(f"{count} of {name}" for name, count in sorted(profiles.items()))
        put(f"{out}  {size / 1e6:.1f} MB: {len(contents.records)} records ({counted})")
        if checkpoints:
            put(f"final weights of {len(contents.weights)} of their {len(trainings)} trainings")
    for conflict in contents.conflicts:
        say(f"conflict: {conflict}")
    for reason in contents.set_aside:
        say(f"not packed: {reason}")
    say(f"To import it elsewhere: harness bundle import {out.name}")
    if contents.conflicts or contents.set_aside:
        raise typer.Exit(1)


@app.command("import", short_help="Take in the records of such files.")
def import_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Bundles: files of harness bundle export.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Verify and compare everything; write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Import bundles: new records into the results folder, weights into the runs folder if that run is not there.

    All files are verified before anything is written; what is wrong is named, with exit code 2. That finds damage and
    careless edits, not forgery: a false record can carry the hash that fits. Nothing is overwritten: where this place
    has other numbers for an evaluation, or other weights of a training, that is named, the rest is imported, and the
    exit code is 1. Importing again changes nothing.
    """
    from harness.bundles.format import read_bundle
    from harness.bundles.merge import apply_merge, plan_merge
    from harness.bundles.own_weights import check_imported
    from harness.folders import results_folder, runs_folder
    from harness.store.records import Store

    store = Store(runs_folder(), results_folder())
    merge = plan_merge(store, [read_bundle(file) for file in files])
    check_imported(merge)
    if not dry_run:
        apply_merge(store, merge)
    if as_json:
        parts = {"records": merge.records, "weights": merge.weights}
        print_json({"dry_run": dry_run, **parts, "conflicts": merge.conflicts})
    else:
        _print_merge(merge, dry_run)
    for conflict in merge.conflicts:
        say(f"conflict: {conflict}")
    if dry_run:
        say("Nothing was written (--dry-run).")
    if merge.conflicts:
        raise typer.Exit(1)


def _print_merge(merge: Merge, dry_run: bool) -> None:
    put(f"records: {_counts(merge.records, dry_run)}")
    profiles = Counter(item.record.profile for item in merge.new_records)
    for name, count in sorted(profiles.items()):
        put(f"  {count} of profile {name}. Next: harness table all --profile {name}")
    put(f"weights: {_counts(merge.weights, dry_run)}")


def _counts(part: Part, dry_run: bool) -> str:
    new = "would be new" if dry_run else "new"
    return f"{len(part.new)} {new}, {len(part.already_there)} already there, {len(part.in_conflict)} in conflict"
