"""The runs that the words of a command line stand for: targets, rows with a seed, ids, Slurm jobs, folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detector.errors import UsageError

if TYPE_CHECKING:
    from detector.runs.folder import RunDir
    from harness.planning.selection import Selection
    from harness.status.find import RunFinder


def finder_of(
    targets: Sequence[str] | None,
    profile: str,
    overrides: list[str] | None,
    data: Path | None,
    batch_size: int | None,
    *,
    seeds: int,
) -> tuple[Selection, RunFinder]:
    """targets: None for all rows of all tables, and what was submitted with options by which it is no row's."""
    from harness.planning.selection import Selection
    from harness.status.find import RunFinder

    selection = Selection(targets or "all", profile, overrides or [], data, batch_size)
    if not targets:
        selection.refs = [ref for table in selection.registry.tables.values() for ref in table.refs(profile)]
    departs = bool(overrides) or batch_size is not None
    return selection, RunFinder(selection, seeds=seeds, departing=not targets and not departs)


def named_runs(name: str) -> list[RunDir] | None:
    """The runs that a name other than TABLE/ROW stands for; None where it is a table, a row, or no such name.

    Several only for the job of an array. Raises UsageError for an id or a job that is not there.
    """
    from detector.runs.folder import RunDir
    from harness.folders import runs_folder
    from harness.status.find import run_folders
    from harness.status.submitted import is_name_of_run, is_run_folder, runs_named

    if is_run_folder(Path(name)):
        return [RunDir(Path(name))]
    return runs_named(runs_folder(), name, run_folders(runs_folder())) if is_name_of_run(name) else None


def run_names(found: Sequence[RunDir]) -> dict[RunDir, str]:
    """What to call runs that were named by something other than their rows."""
    from harness.status.submitted import newest_submissions

    named = {}
    for run in found:
        entry = newest_submissions(run.root.parent).get(run.root.name)
        named[run] = entry.name if entry is not None and entry.member is not None else run.root.name
    return named


def one_run(
    name: str, profile: str, seed: int, overrides: list[str] | None, data: Path | None, batch_size: int | None
) -> RunDir:
    """The run of that name. Raises UsageError where there is none, or more than one."""
    from harness.folders import runs_folder
    from harness.status.submitted import newest_submissions, only

    named = named_runs(name)
    if named is not None:
        return only(name, named, newest_submissions(runs_folder()))
    if "/" not in name:
        raise UsageError(
            f"{name!r} is no run: give TABLE/ROW, at least 3 digits of a training's id, its Slurm job, or its folder."
        )
    _, finder = finder_of([name], profile, overrides, data, batch_size, seeds=0)
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
