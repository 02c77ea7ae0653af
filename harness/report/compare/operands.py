"""What a person may name to ``harness compare``, and the records and settings behind each name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detector.errors import UsageError
from detector.runs.folder import RunDir
from detector.runs.job import EvalJob
from detector.runs.record import Record, read_record
from harness.planning.selection import Selection, records_elsewhere
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, parse_overrides, resolve_recipe
from harness.store.records import Store

FORMS = (
    "A row: table2/L6. A recipe: dr-r50-1x. Either with other settings: table2/L6@optimizer.lr=0.005@batch.images=8. "
    "A training's id, or its first 4 digits or more: a7dde8ff93b5dd70. A run's folder. A record's file: record.json."
)
_ID = re.compile(r"[0-9a-f]{4,16}")


@dataclass(frozen=True)
class Measured:
    """One record, the folder of its run (which may hold nothing), and where its matches per image would lie."""

    record: Record
    run: RunDir
    matches: Path


@dataclass(frozen=True)
class Side:
    """One of the things that are compared. job: its settings; records: by seed, none where it was never run.

    command: what makes its runs; None where no command is known.
    """

    name: str
    job: EvalJob
    measured: tuple[Measured, ...]
    command: str | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of its records."""
        return tuple(item.record.job.train.seed for item in self.measured)


def find_sides(names: Sequence[str], profile: str, data: Path | None) -> list[Side]:
    """The sides in the order of their names. Raises UsageError for fewer than two, and as ``find_side``."""
    if len(names) < 2:
        raise UsageError(f"compare takes two things or more; got {len(names)}. {FORMS}")
    every = Selection("all", profile, [], data)
    return [find_side(name, every, data) for name in names]


def find_side(name: str, every: Selection, data: Path | None) -> Side:
    """One side by any of ``FORMS``. Raises UsageError naming the forms where it is none of them."""
    base, *overrides = name.split("@")
    registry = every.registry
    if base in registry.recipes:
        return _of_recipe(name, base, overrides, every)
    if base.partition("/")[0] in registry.tables and not Path(name).exists():
        return _of_row(name, base, overrides, every, data)
    if Path(name).exists():
        return _of_path(name, Path(name), every.store)
    if _ID.fullmatch(name):
        return _of_id(name, every.store)
    raise UsageError(
        f"{name!r} is no row, recipe, run or record. {FORMS} Rows and recipes: harness list. Runs: harness status."
    )


def sides_elsewhere(names: Sequence[str], every: Selection) -> str:
    """Which other profiles have records of those names that are rows, where this one has none of them; else empty."""
    refs = {ref for table in every.registry.tables.values() for ref in table.refs(every.profile.name)}
    rows = [name for name in names if name in refs]
    return records_elsewhere(Selection(rows, every.profile.name, [], None)) if rows else ""


def _of_row(name: str, ref: str, overrides: list[str], every: Selection, data: Path | None) -> Side:
    if "/" not in ref:
        raise UsageError(
            f"{name!r} is a whole table. Name a row of it, such as {_some_row(every.registry, ref)}. {FORMS}"
        )
    profile = every.profile.name
    selection = Selection(ref, profile, overrides, data)
    plans = selection.reading_plans(selection.refs)
    found = [(plan.cells[0].job, selection.store.records_of(plan.cells[0].job)) for plan in plans]
    job, records = next((pair for pair in found if pair[1]), found[0])
    sets = "".join(f" --set {item}" for item in overrides)
    return _side(name, job, records, selection.store, f"harness run {ref} --profile {profile}{sets}")


def _some_row(registry: Registry, table: str) -> str:
    return f"{table}/{registry.table(table).rows[0].id}"


def _of_recipe(name: str, recipe: str, overrides: list[str], every: Selection) -> Side:
    resolution = resolve_recipe(every.registry, recipe, every.profile, overrides=parse_overrides(overrides))
    job = eval_job(resolution, 0)
    return _side(name, job, every.store.records_of(job), every.store, None)


def _of_path(name: str, path: Path, store: Store) -> Side:
    if path.is_file():
        record = read_record(path)
        beside = path.parent / "matches.npz"
        run = store.run_dir(record.train_id)
        matches = beside if beside.exists() else run.matches(record.eval_id)
        return Side(name, record.job, (Measured(record, run, matches),))
    run = RunDir(path)
    evaluations = sorted(path.glob("evals/*/record.json"))
    if not evaluations:
        raise UsageError(f"{path} has no finished evaluation (evals/*/record.json). {FORMS}")
    if len(evaluations) > 1:
        shown = " or ".join(map(str, evaluations))
        raise UsageError(f"{path} has {len(evaluations)} evaluations; name one: {shown}.")
    record = read_record(evaluations[0])
    return Side(name, record.job, (Measured(record, run, run.matches(record.eval_id)),))


def _of_id(name: str, store: Store) -> Side:
    fitting = [record for record in store.records if name == record.eval_id]
    fitting = fitting or [record for record in store.records if record.train_id.startswith(name)]
    if len(fitting) == 1:
        return _side(name, fitting[0].job, fitting, store, None)
    if not fitting:
        raise UsageError(f"No finished training's id begins with {name!r}. {FORMS} Runs: harness status.")
    ids = ", ".join(f"{record.train_id} (evaluation {record.eval_id})" for record in fitting[:5])
    raise UsageError(f"{name!r} names {len(fitting)} records: {ids}. Give one in full, or the evaluation's id.")


def _side(name: str, job: EvalJob, records: Sequence[Record], store: Store, command: str | None) -> Side:
    measured = []
    for record in records:
        run = store.run_dir(record.train_id)
        measured.append(Measured(record, run, run.matches(record.eval_id)))
    return Side(name, records[0].job if records else job, tuple(measured), command)
