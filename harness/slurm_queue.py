"""What Slurm's queue says of runs, for ``status``; where their processes print, for ``logs``; and ``cancel`` there."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

from detector.errors import SchedulerError
from detector.rundir import RunDir
from harness.run_state import SchedulerState
from harness.submission import (
    SQUEUE_SECONDS,
    Taken,
    read_submissions,
    settle,
    submissions_folder,
    transport_folder,
)

WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "CONFIGURING", "SUSPENDED")
_ELEMENT = re.compile(r"(?P<job>\d+)(?:_(?P<index>\d+))?_(?P<rank>\d+)_log\.(?:out|err)")


class SlurmQueue:
    """One look at the queue: who was submitted from a runs folder and what became of it.

    Raises SchedulerError where there are submissions and the queue cannot be read.
    """

    def __init__(self, runs: Path) -> None:
        self._taken, _ = settle(runs, note=False)
        self._submitted = {run for entry in read_submissions(runs) for run in entry.runs}

    def states(self, run: RunDir) -> SchedulerState | None:
        """Waiting with Slurm's reason, running, or gone; None for a run that was never submitted."""
        taken = self._taken.get(run.root.name)
        if taken is not None:
            return _state(taken)
        return SchedulerState("gone") if run.root.name in self._submitted else None


def has_submissions(runs: Path) -> bool:
    """Whether anything was ever submitted from this runs folder."""
    return any(submissions_folder(runs).glob("*.json"))


def _state(taken: Taken) -> SchedulerState:
    if taken.job is None:
        return SchedulerState("pending", "being submitted")
    if taken.job.state in WAITING:
        reason = taken.job.reason if taken.job.state == "PENDING" else taken.job.state.lower()
        return SchedulerState("pending", reason)
    return SchedulerState("running")


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
        done = subprocess.run(["scancel", job.id], capture_output=True, text=True, check=False, timeout=SQUEUE_SECONDS)
        if done.returncode != 0:
            raise SchedulerError(f"scancel {job.id} failed: {done.stderr.strip() or done.returncode}.")
        say(f"{name}: cancelled job {job.id}" + ("" if job.state in WAITING else ", which saves and ends"))
    return here
