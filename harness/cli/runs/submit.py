"""``harness run --cluster``: submit and return at once, or show what would be submitted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from detector.errors import SchedulerError
from harness.cli.options import say

if TYPE_CHECKING:
    from harness.doctor.machine import Finding
    from harness.planning.plan import Plan
    from harness.planning.selection import Selection
    from harness.slurm.clusters import Cluster


def submit_runs(
    selection: Selection,
    planned: Plan,
    cluster: Cluster,
    names: Mapping[str, str],
    *,
    root: Path,
    weights: Mapping[Any, Path],
    dry_run: bool,
) -> None:
    """Submit the trainings in ``names`` (what a person calls them, by id), as far as nobody has them yet."""
    from harness.launch.assignments import assignments
    from harness.launch.prepare import prepare_data
    from harness.slurm.submit import submit

    if not dry_run:
        prepare_data(planned.data, root, say)
    found = {key: path.absolute() for key, path in weights.items()}
    todo = assignments(planned, selection.store, root=root, weights=found, notes=selection.notes(planned))
    todo = [item for item in todo if item.train.id in names]
    execution = selection.profile.execution
    if dry_run:
        _preview(todo, cluster, selection, names)
        return
    outcome = submit(todo, cluster, execution, runs=selection.store.runs)
    for entry in outcome.recovered:
        say(f"Found again: job {entry.job_id} ({entry.name}), submitted by a command that ended before it knew the id.")
    for train_id, name in names.items():
        if train_id in outcome.skipped:
            say(f"already there: {name}: {outcome.skipped[train_id]}")
    for entry, shape in outcome.submitted:
        say(f"Submitted job {entry.job_id} ({entry.name}): {_runs(len(entry.runs))}, each on {shape}.")
        for index, train_id in enumerate(entry.runs):
            say(f"  {entry.job_id}{f'_{index}' if len(entry.runs) > 1 else ''}: {names[train_id]}")
    target, profile = selection.target, selection.profile.name
    if not outcome.submitted:
        say("Nothing was submitted.")
    say(f"Next: harness status {target} --profile {profile}; later: harness table {target.split('/')[0]} -p {profile}")


def _preview(todo: list[Any], cluster: Cluster, selection: Selection, names: Mapping[str, str]) -> None:
    from harness.code.snapshot import snapshot_id
    from harness.slurm.queue import reconcile
    from harness.slurm.script import make_arrays

    runs = selection.store.runs
    try:
        queued, _ = reconcile(runs, write=False)
    except SchedulerError as error:
        queued = {}
        say(f"The queue was not read: {error}")
    for train_id, name in names.items():
        if train_id in queued:
            say(f"already there: {name}: {queued[train_id]}")
    free = [item for item in todo if item.train.id not in queued]
    for array in make_arrays(free, cluster, selection.profile.execution, runs=runs, code=snapshot_id()):
        say(f"{_runs(len(array.members))}, each on {array.shape}:")
        for index, item in enumerate(array.members):
            say(f"  {index}: {names[item.train.id]}")
        typer.echo(array.script)
    say("Nothing was submitted (--dry-run).")


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"


def examine_named_cluster(name: str, data: Path | None, wait: float | None) -> list[Finding]:
    """``harness doctor --cluster``: says on stderr what is waited for; Ctrl-C cancels the job."""
    from harness.doctor.cluster import DEFAULT_WAIT_MINUTES, examine_cluster
    from harness.slurm.clusters import find_cluster

    try:
        minutes = DEFAULT_WAIT_MINUTES if wait is None else wait
        return examine_cluster(find_cluster(name), data, wait_minutes=minutes, say=say)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
