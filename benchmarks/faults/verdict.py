"""What became of a disturbed training: lost, doubled or differing, judged from what lies in its runs folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from torch import Tensor

from detector.errors import HarnessError
from detector.runs.folder import RunDir
from detector.runs.log_lines import FINAL_AP, of_worker
from detector.runs.record import Record
from detector.storage.reading import read_json
from support.final_weights import assert_same_bits, final_weights


@dataclass(frozen=True)
class Course:
    """When an undisturbed training logs its first and its last loss, and ends; seconds after its start."""

    first: float
    last: float
    end: float


@dataclass(frozen=True)
class Reference:
    """An undisturbed training with as many processes."""

    weights: dict[str, Tensor]
    logged: list[int]
    metrics: dict[str, float | None]
    course: Course


@dataclass(frozen=True)
class JobTimes:
    """When a job entered the queue and left it, in seconds since the epoch."""

    id: str
    submitted: float
    ended: float


@dataclass(frozen=True)
class Verdict:
    """Why a run counts as lost, doubled or differing; empty where it does not."""

    lost: str = ""
    doubled: str = ""
    differing: str = ""

    @property
    def is_good(self) -> bool:
        """Whether the fault did no harm: nothing lost, doubled or differing."""
        return not (self.lost or self.doubled or self.differing)


def records_in(runs: Path) -> list[Path]:
    """All records of a runs folder."""
    return sorted(runs.glob("*/evals/*/record.json"))


def logged_iterations(run: RunDir) -> list[int]:
    """The iterations of ``metrics.jsonl``, in the order of its lines. Raises ValueError for half a line."""
    return [json.loads(line)["iteration"] for line in run.metrics.read_text().splitlines()]


def reference_of(runs: Path, course: Course) -> Reference:
    """What the one finished run of a folder ended with."""
    (record,) = records_in(runs)
    run = RunDir(record.parents[2])
    return Reference(final_weights(run), logged_iterations(run), read_json(record, Record).metrics, course)


def judge(runs: Path, reference: Reference, jobs: Sequence[JobTimes] = ()) -> Verdict:
    """The verdict on a folder in which one run was asked for. jobs: those that Slurm was given for it."""
    records = records_in(runs)
    if not records:
        return Verdict(lost="no record", doubled=_overlap(jobs))
    if len(records) > 1:
        return Verdict(doubled=f"{len(records)} records")
    run = RunDir(records[0].parents[2])
    evaluated = run.log.read_text().count(of_worker("INFO", FINAL_AP))
    again = f"{evaluated} evaluations to a record" if evaluated > 1 else ""
    return Verdict(doubled=again or _overlap(jobs), differing=_difference(run, records[0], reference))


def _difference(run: RunDir, record: Path, reference: Reference) -> str:
    try:
        assert_same_bits(final_weights(run), reference.weights)
        metrics, logged = read_json(record, Record).metrics, logged_iterations(run)
    except AssertionError as error:
        return f"weights: {error}"
    except (HarnessError, ValueError) as error:
        return str(error)
    if logged != reference.logged:
        return f"iterations logged: {sorted(set(reference.logged) ^ set(logged)) or 'in another order'}"
    return "" if metrics == reference.metrics else "metrics of the record"


def _overlap(jobs: Sequence[JobTimes]) -> str:
    """Whether two jobs were in the queue at once: they would train one run twice."""
    ordered = sorted(jobs, key=lambda job: job.submitted)
    for first, second in pairwise(ordered):
        if second.submitted < first.ended:
            return f"jobs {first.id} and {second.id} at once"
    return ""
