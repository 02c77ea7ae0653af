"""What ``harness run --cluster`` prints: the jobs that it submitted, or would submit."""

from __future__ import annotations

from harness.cli.options import put, say
from harness.launch.run import RunResult
from harness.launch.submit import DryRun, count_of_runs, skipped_lines, submission_lines
from harness.slurm.submit import Outcome


def print_submission(result: RunResult, outcome: Outcome) -> None:
    """The jobs and their runs, and the next commands."""
    for line in submission_lines(outcome, result.names):
        say(line)
    if not outcome.submitted:
        say("Nothing was submitted.")
    target, profile = result.target, result.plan.profile.name
    say(f"Next: harness status {target} --profile {profile}; later: harness table {result.tables} -p {profile}")


def print_dry_run(result: RunResult, preview: DryRun) -> None:
    """The scripts on stdout, what they are for on stderr."""
    names = result.names
    for line in skipped_lines(preview.skipped, names):
        say(line)
    for array in preview.arrays:
        say(f"{count_of_runs(len(array.members))}, each on {array.shape}:")
        for index, item in enumerate(array.members):
            say(f"  {index}: {names[item.train.id]}")
        put(array.script, exact=True)
    for why in preview.why_held_back:
        say(f"Held back: {why}.")
    say("Nothing was submitted (--dry-run).")
