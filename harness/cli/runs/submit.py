"""What ``harness run --cluster`` prints: the jobs that it submitted, or would submit."""

from __future__ import annotations

from harness.cli.options import put, say
from harness.launch.run import RunResult, count_of_runs
from harness.launch.submit import DryRun
from harness.slurm.submit import Outcome


def print_submission(result: RunResult, outcome: Outcome) -> None:
    """The jobs and their runs, and the next commands."""
    names, target, profile = result.names, result.target, result.plan.profile.name
    for entry in outcome.recovered:
        say(f"Found again: job {entry.job_id} ({entry.name}), submitted by a command that ended before it knew the id.")
    _say_skipped(outcome.skipped, names)
    for entry, shape in outcome.submitted:
        say(f"Submitted job {entry.job_id} ({entry.name}): {count_of_runs(len(entry.runs))}, each on {shape}.")
        for index, train_id in enumerate(entry.runs):
            say(f"  {entry.job_id}{f'_{index}' if len(entry.runs) > 1 else ''}: {names[train_id]}")
    if not outcome.submitted:
        say("Nothing was submitted.")
    say(f"Next: harness status {target} --profile {profile}; later: harness table {result.tables} -p {profile}")


def print_dry_run(result: RunResult, preview: DryRun) -> None:
    """The scripts on stdout, what they are for on stderr."""
    names = result.names
    _say_skipped(preview.skipped, names)
    for array in preview.arrays:
        say(f"{count_of_runs(len(array.members))}, each on {array.shape}:")
        for index, item in enumerate(array.members):
            say(f"  {index}: {names[item.train.id]}")
        put(array.script)
    say("Nothing was submitted (--dry-run).")


def _say_skipped(skipped: dict[str, str], names: dict[str, str]) -> None:
    for train_id, name in names.items():
        if train_id in skipped:
            say(f"already there: {name}: {skipped[train_id]}")
