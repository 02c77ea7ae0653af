"""Which trainings and evaluations a target needs, once each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from detector.errors import UsageError
from detector.runs.job import AnnotatedFolder, DataSource, EvalJob, TrainJob
from harness.registry.declarations import Profile
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve
from harness.units import MAX_SEEDS


@dataclass(frozen=True)
class Cell:
    """One seed of one row: the evaluation that fills it."""

    ref: str
    seed: int
    job: EvalJob


@dataclass(frozen=True)
class Plan:
    """Cells of a target, and the trainings behind them without duplicates."""

    profile: Profile
    cells: tuple[Cell, ...]
    from_scratch: bool = False
    overridden: bool = False  # by --set

    @cached_property
    def trainings(self) -> dict[str, TrainJob]:
        """By id, in the order of the cells, seed by seed."""
        return {cell.job.train.id: cell.job.train for cell in sorted(self.cells, key=lambda cell: cell.seed)}

    @cached_property
    def evaluations(self) -> dict[str, list[EvalJob]]:
        """By training id: the evaluations of its final weights, each once."""
        found: dict[str, dict[str, EvalJob]] = {train_id: {} for train_id in self.trainings}
        for cell in self.cells:
            found[cell.job.train.id][cell.job.id] = cell.job
        return {train_id: list(jobs.values()) for train_id, jobs in found.items()}

    @property
    def data(self) -> DataSource:
        """The data set of all of the plan's trainings (``Selection.plan`` refuses others)."""
        return self.cells[0].job.train.data

    def refs_of(self, train_id: str) -> list[str]:
        """The rows that one training serves."""
        return list(self._refs.get(train_id, ()))

    @cached_property
    def _refs(self) -> dict[str, list[str]]:
        """Rows by training id, each once; an id takes long enough that each is computed once only."""
        found: dict[str, dict[str, None]] = {}
        for cell in self.cells:
            found.setdefault(cell.job.train.id, {})[cell.ref] = None
        return {train_id: list(refs) for train_id, refs in found.items()}


def make_plan(
    registry: Registry,
    refs: list[str],
    profile: Profile,
    *,
    seeds: int = 1,
    overrides: Mapping[str, Any] | None = None,
    from_scratch: bool = False,
    data: DataSource | None = None,
    batch_size: int | None = None,
) -> Plan:
    """Every (row, seed) of ``refs`` resolved at the profile's scale.

    data: the identified data set for the rows whose settings leave it open (``identify``); None leaves it open.
    batch_size: images per batch in place of the recipe's, with the schedule rescaled (``harness.registry.batch_rule``).
    """
    if not 1 <= seeds <= MAX_SEEDS:
        raise UsageError(f"--seeds is {seeds}; it must be 1 to {MAX_SEEDS}.")
    if not refs:
        raise UsageError(
            f"No row of the target is trained at profile {profile.name}. Run 'harness list' for those that are."
        )
    cells = []
    for ref in refs:
        resolution = resolve(
            registry, ref, profile, overrides=overrides, from_scratch=from_scratch, batch_size=batch_size
        )
        for seed in range(seeds):
            job = eval_job(resolution, seed)
            if data is not None and _unnamed(job.train.data) == _unnamed(data):
                job = msgspec.structs.replace(job, train=msgspec.structs.replace(job.train, data=data))
            cells.append(Cell(ref, seed, job))
    return Plan(profile, tuple(cells), from_scratch, bool(overrides))


def _unnamed(source: DataSource) -> DataSource:
    """A data source without the identity of a folder."""
    if not isinstance(source, AnnotatedFolder):
        return source
    return msgspec.structs.replace(source, train_sha256=None, test_sha256=None)
