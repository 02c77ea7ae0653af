"""Which trainings and evaluations a target needs, once each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from detector.errors import UsageError
from detector.job import AnnotatedFolder, DataSource, EvalJob, Shapes, TrainJob
from harness.declarations import Profile
from harness.registry import Registry
from harness.resolve import eval_job, resolve


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
        """The data set of all of the plan's trainings: rows do not set it."""
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

    data: the identified data set where the profile leaves it open (``identify``); None leaves it open.
    batch_size: images a batch in place of the recipe's, with the schedule rescaled (``harness.batch_rule``).
    """
    if seeds < 1:
        raise UsageError(f"--seeds is {seeds}; it must be 1 or more.")
    cells = []
    for ref in refs:
        resolution = resolve(
            registry, ref, profile, overrides=overrides, from_scratch=from_scratch, batch_size=batch_size
        )
        for seed in range(seeds):
            job = eval_job(resolution, seed)
            if data is not None:
                job = msgspec.structs.replace(job, train=msgspec.structs.replace(job.train, data=data))
            cells.append(Cell(ref, seed, job))
    return Plan(profile, tuple(cells), from_scratch, bool(overrides))


def data_source(registry: Registry, refs: list[str], profile: Profile, overrides: Mapping[str, Any]) -> DataSource:
    """The data that a profile's runs name; one for all rows, since rows do not set it."""
    return eval_job(resolve(registry, refs[0], profile, overrides=overrides), 0).train.data


def data_root(source: DataSource, given: Path | None, runs: Path) -> Path:
    """Where the data lies: --data, HARNESS_DATA, or for a generated set a folder of its own under the runs.

    Raises UsageError where a COCO root is needed and none was named.
    """
    if isinstance(source, Shapes):
        from detector.data.shapes import shapes_folder_name

        return given or runs / "data" / shapes_folder_name(source)
    return named_root(given)


def named_data(given: Path | None) -> Path | None:
    """--data, else $HARNESS_DATA."""
    return given or (Path(os.environ["HARNESS_DATA"]) if os.environ.get("HARNESS_DATA") else None)


def named_root(given: Path | None) -> Path:
    """The COCO root of --data or HARNESS_DATA. Raises UsageError where neither names one."""
    named = named_data(given)
    if named is None:
        raise UsageError(
            "A COCO root (annotations/, train2017/, val2017/) is needed: name it with --data DIR or HARNESS_DATA. "
            "To get one: harness data download --out DIR (--images 64 for a small one)."
        )
    return named


def identify(source: DataSource, root: Path) -> DataSource:
    """The source with the identity of what lies at ``root``: a folder's annotation hashes."""
    if not isinstance(source, AnnotatedFolder):
        return source
    from detector.data.coco import annotations_sha256

    return msgspec.structs.replace(
        source,
        train_sha256=annotations_sha256(root, source.train_split),
        test_sha256=annotations_sha256(root, source.test_split),
    )


def without_data(job: EvalJob) -> EvalJob:
    """The job with an open data identity: what the records of one row over any data set share."""
    source = job.train.data
    if not isinstance(source, AnnotatedFolder):
        return job
    blank = msgspec.structs.replace(source, train_sha256=None, test_sha256=None)
    return msgspec.structs.replace(job, train=msgspec.structs.replace(job.train, data=blank))
