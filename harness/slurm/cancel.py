"""``harness cancel`` in Slurm's queues: waiting jobs leave, running ones save and end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from detector.runs.folder import RunDir
from harness.slurm.backend.answers import QueuedJob
from harness.slurm.queue import WAITING, Element, SlurmQueue, has_submissions
from harness.slurm.submissions import Submission

logger = logging.getLogger(__name__)


def cancel_queued(runs: Path, names: Mapping[str, str], say: Callable[[str], None]) -> tuple[set[str], set[str]]:
    """Cancel the queued jobs of some runs, with as few calls as can be.

    Returns the runs that were cancelled, and those that were not, since nobody knows their jobs now. A running job is
    first told to save, as at its time limit, and is not queued again. names: what a person calls each run, by training
    id. Raises SchedulerError where scancel fails.
    """
    if not has_submissions(runs):
        return set(), set()
    queue = SlurmQueue(runs, fresh=True, damaged=logger.warning)
    cancelled, left, by_slurm = set[str](), set[str](), dict[tuple[str, str], list[tuple[Element, QueuedJob]]]()
    for run in sorted(names):
        state, element = queue.states(RunDir(runs / run)), queue.elements.get(run)
        if state is None or element is None or state.phase in ("gone", "refused"):
            continue
        job = queue.job_of(run)
        if state.phase == "submitting":
            left.add(run)
            say(f"{names[run]}: is being submitted at this moment; try again in a minute.")
        elif state.phase == "unknown" or job is None:
            left.add(run)
            say(f"{names[run]}: not cancelled, since its state is not known. {state.reason}")
        else:
            by_slurm.setdefault((element.entry.slurm, element.entry.conf), []).append((element, job))
    for key, found in by_slurm.items():
        queue.looks[key].slurm.cancel(_whole_arrays(found))
        queue.looks[key].slurm.forget(runs, key[0])
        for element, job in found:
            run = element.entry.runs[element.index]
            cancelled.add(run)
            say(f"{names[run]}: cancelled job {job.id}" + ("" if job.state in WAITING else ", which saves and ends"))
    return cancelled, left


def _whole_arrays(found: Iterable[tuple[Element, QueuedJob]]) -> list[str]:
    """What scancel is told: an array by its id where all of its elements are meant, and else ranges of elements."""
    arrays: dict[str, tuple[Submission, set[int]]] = {}
    for element, job in found:
        entry, indices = arrays.setdefault(job.base_id, (element.entry, set()))
        indices.add(element.index)
    told = []
    for job_id, (entry, indices) in arrays.items():
        whole = len(entry.runs) == 1 or indices == set(range(len(entry.runs)))
        told.append(job_id if whole else f"{job_id}_[{_ranges(sorted(indices))}]")
    return told


def _ranges(indices: list[int]) -> str:
    """As Slurm writes it: 0-3,7."""
    spans: list[list[int]] = []
    for index in indices:
        if spans and spans[-1][-1] == index - 1:
            spans[-1].append(index)
        else:
            spans.append([index])
    return ",".join(f"{span[0]}-{span[-1]}" if len(span) > 1 else str(span[0]) for span in spans)
