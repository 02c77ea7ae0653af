"""Submissions compared with Slurm's queue: which runs are queued, how the others' jobs ended, and ``cancel``."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from msgspec.structs import replace

from detector.errors import SchedulerError
from detector.runs.folder import RunDir
from harness.slurm.commands import SQUEUE_SECONDS, WAITING, QueuedJob, read_accounts, read_queue
from harness.slurm.reservations import GRACE_SECONDS, release
from harness.slurm.states import SchedulerState
from harness.slurm.submissions import Submission, read_submissions, run_of, submissions_folder, write_submission

logger = logging.getLogger(__name__)


class SlurmQueue:
    """One look at the queue: which runs were submitted from a runs folder, and what became of them.

    Raises SchedulerError where there are submissions and the queue cannot be read.
    """

    def __init__(self, runs: Path) -> None:
        self._queued, _ = reconcile(runs, write=False)
        self._submitted = _newest_jobs(read_submissions(runs, damaged=logger.debug))  # told once, above

    def states(self, run: RunDir) -> SchedulerState | None:
        """Pending with Slurm's reason, running, or gone; None for a run that was never submitted."""
        queued = self._queued.get(run.root.name)
        if queued is not None:
            return _state(queued)
        if run.root.name not in self._submitted:
            return None
        return self._accounts.get(self._submitted[run.root.name], SchedulerState("gone"))

    @cached_property
    def _accounts(self) -> dict[str, SchedulerState]:
        """How the jobs ended that are no longer in the queue. Slurm is asked once, and only when this is needed."""
        return read_accounts([job for run, job in self._submitted.items() if run not in self._queued and job])


def has_submissions(runs: Path) -> bool:
    """Whether anything was ever submitted from this runs folder."""
    return any(submissions_folder(runs).glob("*.json"))


def _newest_jobs(submissions: Iterable[Submission]) -> dict[str, str]:
    """The id of each run's newest job; "" where it was never known. submissions: the oldest first."""
    newest = {}
    for submission in submissions:
        for index, run in enumerate(submission.runs):
            element = f"_{index}" if len(submission.runs) > 1 else ""
            newest[run] = f"{submission.job_id}{element}" if submission.job_id else ""
    return newest


def _state(queued: QueuedRun) -> SchedulerState:
    if queued.job is None:
        return SchedulerState("pending", "being submitted")
    job = queued.job
    if job.state in WAITING:
        reason = job.reason.replace("None", "") if job.state == "PENDING" else job.state.lower()
        return SchedulerState("pending", reason, job.restarts)
    return SchedulerState("running", requeues=job.restarts)


def cancel_queued(runs: Path, names: Mapping[str, str], say: Callable[[str], None]) -> set[str]:
    """Cancel the queued jobs of some runs, and return the runs that were queued.

    A running job is first told to save, as at its time limit, and is not requeued. names: what a person calls each
    run, by training id.
    """
    if not has_submissions(runs):
        return set()
    queued, _ = reconcile(runs, write=False)
    here = {run for run in names if run in queued}
    for run in sorted(here):
        job, name = queued[run].job, names[run]
        if job is None:
            say(f"{name}: is being submitted at this moment; try again in a minute.")
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
class QueuedRun:
    """A run that must not be submitted now. job: None while its submission has not reached the queue yet."""

    token: str
    job: QueuedJob | None

    def __str__(self) -> str:
        if self.job is None:
            return "being submitted"
        reason = f" ({self.job.reason})" if self.job.state == "PENDING" else ""
        return f"job {self.job.id}, {self.job.state.lower()}{reason}"


def reconcile(
    runs: Path, *, now: float | None = None, write: bool = True
) -> tuple[dict[str, QueuedRun], list[Submission]]:
    """Compare the submissions that are written down with the queue, and write down what has changed.

    Returns the runs that are queued or being submitted, and the recovered submissions: those whose job is known only
    now, by its name, because the command that submitted it died before it knew the id. write: False to change no file.
    """
    now = time.time() if now is None else now
    damaged = None if write else logger.warning  # who only looks shows the rest
    submissions = [item for item in read_submissions(runs, damaged=damaged) if item.state != "ended"]
    by_name: dict[str, list[QueuedJob]] = {}
    for job in read_queue(item.name for item in submissions):
        by_name.setdefault(job.name, []).append(job)
    queued, recovered = dict[str, QueuedRun](), list[Submission]()
    for item in submissions:
        jobs = by_name.get(item.name, [])
        here = {item.runs[job.index]: QueuedRun(item.token, job) for job in jobs if job.index < len(item.runs)}
        queued |= here
        if jobs and item.state == "submitting":
            recovered.append(replace(item, state="submitted", job_id=jobs[0].base_id))
            if write:
                write_submission(runs, recovered[-1])
        elif not jobs and item.state == "submitting" and now - item.time < GRACE_SECONDS:
            queued |= {run: QueuedRun(item.token, None) for run in item.runs}
            continue
        if not write:
            continue
        if not jobs:
            write_submission(runs, replace(item, state="ended"))
        for run in set(item.runs) - set(here):  # an element that ended releases its run, whatever the others do
            release(run_of(runs, run), item.token)
    return queued, recovered
