"""The starts of one Slurm job, and whether they get the training ahead fast enough ever to end it. Free of torch.

Rank 0 notes each start in ``task-<index>.starts``; the batch script notes in ``task-<index>.ends`` how each ended.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from detector.errors import RecordError, TrainingError
from detector.runs.folder import RunDir
from detector.storage.reading import read_bytes

logger = logging.getLogger(__name__)

LEAST_STARTS: Final = 3  # that the time limit ended, before anything is concluded
LAST_STARTS: Final = 5  # that are looked at: a training may become slower or faster
_STEP = re.compile(r"(\d+)\.pt")
_START = re.compile(rb"(\d{1,15}) (\d{1,9})")


@dataclass(frozen=True)
class Began:
    """One start. iteration: that it went on after. ended: how many starts the batch script had seen end before it."""

    iteration: int
    ended: int


def check_starts(run: RunDir, starts: Path, ends: Path, *, iterations: int, restarts: int, max_requeues: int) -> None:
    """Note this start of a job, unless the training is done.

    iterations: of the whole training. restarts: the job's starts before this one. Raises TrainingError where the starts
    so far got ahead by so little that the training does not end within ``max_requeues``.
    """
    if run.final.exists():
        return
    causes, reached = _causes(ends), newest_step(run)
    began = [*_read(starts), Began(reached, len(causes))]
    try:
        with starts.open("ab", buffering=0) as file:
            file.write(f"{reached} {len(causes)}\n".encode())
    except OSError as error:
        logger.warning("this start was not noted in %s: %s", starts, error)
    wrong = too_slow(won_in_time(began, causes), left=iterations - reached, starts_left=1 + max_requeues - restarts)
    if wrong:
        raise TrainingError(wrong)


def newest_step(run: RunDir) -> int:
    """The iteration of the newest checkpoint to go on from; 0 where there is none."""
    steps = (_STEP.fullmatch(path.name) for path in run.checkpoints.glob("*.pt"))
    return max((int(step[1]) for step in steps if step), default=0)


def won_in_time(began: Sequence[Began], causes: Sequence[str]) -> list[int]:
    """Iterations that each start won which the time limit ended, the oldest first.

    began: all starts, the present one last. causes: how starts ended, as the batch script noted it: no line for one
    that ended with its node. A start that made room for another job, or failed, says nothing of the others' length.
    """
    won = []
    for start, following in pairwise(began):
        noted = causes[following.ended - 1] if start.ended < following.ended <= len(causes) else ""
        if noted == "time":
            won.append(max(0, following.iteration - start.iteration))
    return won


def too_slow(won: Sequence[int], *, left: int, starts_left: int) -> str:
    """Why the training will not end, and what to change, in words; empty where it will, or too little is known.

    won: of the starts that the time limit ended. left: iterations. starts_left: this one and those that may follow.
    """
    last = won[-LAST_STARTS:]
    if len(last) < LEAST_STARTS or left <= 0:
        return ""
    mean = sum(last) / len(last)
    if not any(won[-LEAST_STARTS:]):
        shown = f"The last {LEAST_STARTS} starts of this job won no iteration before their time was up"
        wants = f"and {left:,} are left"
    elif (needed := math.ceil(left / mean)) > starts_left:
        shown = f"The last {len(last)} starts of this job won {mean:,.0f} iterations each before their time was up"
        wants = f"so that the other {left:,} take {needed:,} more, and {starts_left} are left (max_requeues)"
    else:
        return ""
    return (
        f"{shown}, {wants}. Give the job more time (time_minutes in the cluster file), let it save later (a lower "
        "signal_delay_seconds), or let it save more often (execution.checkpoint_every in the profile); then submit it "
        "again: it goes on from its checkpoint."
    )


def _read(starts: Path) -> list[Began]:
    found = (_START.fullmatch(line) for line in _lines(starts))
    return [Began(int(line[1]), int(line[2])) for line in found if line]


def _causes(ends: Path) -> list[str]:
    return [line.partition(b" ")[0].decode(errors="replace") for line in _lines(ends) if line.strip()]


def _lines(path: Path) -> list[bytes]:
    try:
        return read_bytes(path).splitlines() if path.exists() else []
    except RecordError as error:
        logger.warning("%s What earlier starts did is not known.", error)
        return []
