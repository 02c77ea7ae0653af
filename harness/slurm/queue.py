"""What Slurm's queue says of runs, for ``status``; where their processes print, for ``logs``; and ``cancel`` there."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from msgspec.structs import replace

from detector.errors import SchedulerError
from detector.runs.folder import RunDir
from harness.slurm.commands import SQUEUE_SECONDS, WAITING, QueuedJob, SchedulerState, read_accounts, read_queue
from harness.slurm.reservations import GRACE_SECONDS, release
from harness.slurm.submissions import Submission, read_submissions, submissions_folder, write_submission


class SlurmQueue:
    """One look at the queue: who was submitted from a runs folder, and what became of it.

    Raises SchedulerError where there are submissions and the queue cannot be read.
    """

    def __init__(self, runs: Path) -> None:
        self._taken, _ = settle(runs, note=False)
        self._submitted = _newest_jobs(read_submissions(runs))

    def states(self, run: RunDir) -> SchedulerState | None:
        """Waiting with Slurm's reason, running, or gone; None for a run that was never submitted."""
        taken = self._taken.get(run.root.name)
        if taken is not None:
            return _state(taken)
        if run.root.name not in self._submitted:
            return None
        return self._accounts.get(self._submitted[run.root.name], SchedulerState("gone"))

    @cached_property
    def _accounts(self) -> dict[str, SchedulerState]:
        """How the jobs of runs that the queue has no more ended; asked for once, and only if somebody wants to know."""
        return read_accounts([job for run, job in self._submitted.items() if run not in self._taken and job])


def has_submissions(runs: Path) -> bool:
    """Whether anything was ever submitted from this runs folder."""
    return any(submissions_folder(runs).glob("*.json"))


def _newest_jobs(submissions: Iterable[Submission]) -> dict[str, str]:
    """By run, its newest job; "" where the id was never known. Oldest submission first."""
    newest = {}
    for entry in submissions:
        for index, run in enumerate(entry.runs):
            element = f"_{index}" if len(entry.runs) > 1 else ""
            newest[run] = f"{entry.job_id}{element}" if entry.job_id else ""
    return newest


def _state(taken: Taken) -> SchedulerState:
    if taken.job is None:
        return SchedulerState("pending", "being submitted")
    if taken.job.state in WAITING:
        reason = taken.job.reason.replace("None", "") if taken.job.state == "PENDING" else taken.job.state.lower()
        return SchedulerState("pending", reason, taken.job.restarts)
    return SchedulerState("running", requeues=taken.job.restarts)


def cancel_queued(runs: Path, names: Mapping[str, str], say: Callable[[str], None]) -> set[str]:
    """Take the runs in ``names`` (what a person calls them, by training id) out of the queue; those that were there.

    One that runs is told to save first, as by its time limit, and is not queued again.
    """
    if not has_submissions(runs):
        return set()
    taken, _ = settle(runs, note=False)
    here = {run for run in names if run in taken}
    for run in sorted(here):
        job, name = taken[run].job, names[run]
        if job is None:
            say(f"{name}: is being submitted just now; try again in a minute.")
            continue
        command = ["scancel", job.id]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SQUEUE_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SchedulerError(f"scancel {job.id} failed: {error}.") from error
        if done.returncode != 0:
            raise SchedulerError(f"scancel {job.id} failed: {done.stderr.strip() or done.returncode}.")
        say(f"{name}: cancelled job {job.id}" + ("" if job.state in WAITING else ", which saves and ends"))
    return here


@dataclass(frozen=True)
class Taken:
    """Why a run must not be submitted now; ``job`` is None where its submission is still on its way to the queue."""

    token: str
    job: QueuedJob | None

    def __str__(self) -> str:
        if self.job is None:
            return "being submitted"
        reason = f" ({self.job.reason})" if self.job.state == "PENDING" else ""
        return f"job {self.job.id}, {self.job.state.lower()}{reason}"


def settle(runs: Path, *, now: float | None = None, note: bool = True) -> tuple[dict[str, Taken], list[Submission]]:
    """Compare what was written down with the queue, and note what has changed (unless told not to).

    Returns the runs that are queued or on their way there, and the submissions whose job was found by its name only
    now (the command that submitted it died before it knew the id).
    """
    now = time.time() if now is None else now
    submissions = [item for item in read_submissions(runs) if item.state != "ended"]
    by_name: dict[str, list[QueuedJob]] = {}
    for job in read_queue(item.name for item in submissions):
        by_name.setdefault(job.name, []).append(job)
    taken, adopted = dict[str, Taken](), list[Submission]()
    for item in submissions:
        jobs = by_name.get(item.name, [])
        here = {item.runs[job.index]: Taken(item.token, job) for job in jobs if job.index < len(item.runs)}
        taken |= here
        if jobs and item.state == "submitting":
            adopted.append(replace(item, state="submitted", job_id=jobs[0].base_id))
            if note:
                write_submission(runs, adopted[-1])
        elif not jobs and item.state == "submitting" and now - item.time < GRACE_SECONDS:
            taken |= {run: Taken(item.token, None) for run in item.runs}
            continue
        if not note:
            continue
        if not jobs:
            write_submission(runs, replace(item, state="ended"))
        for run in set(item.runs) - set(here):  # an element that ended frees its run, whatever the others do
            release(RunDir(runs / run), item.token)
    return taken, adopted
