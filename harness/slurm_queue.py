"""What Slurm's queue says of runs, for ``status``; where their processes print, for ``logs``; and ``cancel`` there."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, lru_cache
from pathlib import Path

from detector.errors import SchedulerError
from detector.rundir import RunDir
from harness.run_state import SchedulerState
from harness.submission import (
    SQUEUE_SECONDS,
    Submission,
    Taken,
    read_submissions,
    settle,
    submissions_folder,
    transport_folder,
)

WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "CONFIGURING", "SUSPENDED")
ACCOUNTS_AT_ONCE = 500  # jobs in one question: what a command line holds
# JobID|State|ExitCode, such as 17_1|CANCELLED by 1000|0:15; without the parts of arrays that still wait (17_[2-5]).
_ACCOUNT = re.compile(r"^(?P<job>\d+(?:_\d+)?)\|(?P<state>[^|]+)\|(?P<code>\d+):(?P<signal>\d+)$", re.MULTILINE)
_ELEMENT = re.compile(r"(?P<job>\d+)(?:_(?P<index>\d+))?_(?P<rank>\d+)_log\.(?:out|err)")


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


def read_accounts(jobs: Iterable[str]) -> dict[str, SchedulerState]:
    """How jobs ended, by id; of those that Slurm keeps accounts of, on the many clusters without them of none."""
    wanted, found = sorted(jobs), dict[str, SchedulerState]()
    for first in range(0, len(wanted), ACCOUNTS_AT_ONCE):
        listed = ",".join(wanted[first : first + ACCOUNTS_AT_ONCE])
        command = ["sacct", "-n", "-X", "-P", "-o", "JobID,State,ExitCode", "-j", listed]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SQUEUE_SECONDS)
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return found
        for match in _ACCOUNT.finditer(done.stdout):
            number = int(match["signal"])
            code = 128 + number if number else int(match["code"])
            found[match["job"]] = SchedulerState("gone", match["state"], exit_code=code)
    return found


def _state(taken: Taken) -> SchedulerState:
    if taken.job is None:
        return SchedulerState("pending", "being submitted")
    if taken.job.state in WAITING:
        reason = taken.job.reason.replace("None", "") if taken.job.state == "PENDING" else taken.job.state.lower()
        return SchedulerState("pending", reason, taken.job.restarts)
    return SchedulerState("running", requeues=taken.job.restarts)


def submitted_outputs(run: RunDir) -> list[Path]:
    """What the run's processes printed in Slurm jobs, of every submission that had it."""
    runs, folder, found = run.root.parent, submissions_folder(run.root.parent), list[Path]()
    if not folder.is_dir():
        return found
    for token, index in _elements(runs, folder.stat().st_mtime_ns).get(run.root.name, ()):
        for path in transport_folder(runs, token).glob("*_log.*"):
            match = _ELEMENT.fullmatch(path.name)
            if match and int(match["index"] or 0) == index:
                found.append(path)
    return found


@lru_cache(maxsize=4)
def _elements(runs: Path, changed: int) -> dict[str, list[tuple[str, int]]]:
    """By run, the (token, index) of every submission that had it; read once for all runs of one look (``changed``)."""
    elements: dict[str, list[tuple[str, int]]] = {}
    for entry in read_submissions(runs):
        for index, name in enumerate(entry.runs):
            elements.setdefault(name, []).append((entry.token, index))
    return elements


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
