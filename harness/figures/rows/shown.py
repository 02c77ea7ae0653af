"""Which rows of a selection a figure shows, each set of runs once, and the words where it shows none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from detector.runs.record import Record
from harness.figures.figure import Figure, Numbers
from harness.planning.selection import Selection
from harness.planning.unequal import apart, choose
from harness.verdicts.runs import ProfileRuns

MOST_ROWS = 60  # that one figure shows: more would be taller than a page


@dataclass(frozen=True)
class ShownRow:
    """Rows that are the same runs. refs: as a target names them. records: one per seed, those that are averaged."""

    refs: tuple[str, ...]
    label: str
    records: tuple[Record, ...]

    @property
    def ref(self) -> str:
        """The first of its rows, in the order of the target."""
        return self.refs[0]

    def by_seed(self, metric: str) -> dict[int, float]:
        """Seed -> value of a metric, without the records that have none."""
        found = {record.job.train.seed: record.metrics.get(metric) for record in self.records}
        return {seed: value for seed, value in found.items() if value is not None}


def shown_rows(
    selection: Selection, same: Callable[[Record], str] = lambda record: record.eval_id
) -> tuple[ShownRow, ...]:
    """The target's rows that have finished runs, in its order.

    same: what two records must share to be shown once; by default the evaluation.
    """
    found = selection.row_records()
    kept = {ref: choose(found.get(ref, [])).kept for ref in selection.refs}
    groups: dict[tuple[str, ...], list[str]] = {}
    for ref, records in kept.items():
        if records:
            groups.setdefault(tuple(sorted(same(record) for record in records)), []).append(ref)
    names = labels(selection.refs)
    return tuple(
        ShownRow(tuple(refs), " = ".join(names[ref] for ref in refs), kept[refs[0]]) for refs in groups.values()
    )


def labels(refs: Iterable[str]) -> dict[str, str]:
    """Each row's name, without its table where no other row has it."""
    refs = list(refs)
    number = Counter(ref.split("/", 1)[1] for ref in refs)
    return {ref: name if number[name := ref.split("/", 1)[1]] == 1 else ref for ref in refs}


def profile_runs(selection: Selection, *, own: bool) -> ProfileRuns:
    """All rows of the profile as verdicts see them: those whose runs had other inputs are left out.

    own: with the user's own rows; what is said of the paper is said without them.
    """
    found = {ref: choose(records).kept for ref, records in selection.row_records().items()}
    every = ProfileRuns(selection.runs(), selection.profile.assumed_sd).without(apart(found))
    return every if own else every.without(selection.registry.own_rows)


def leading(rows: Sequence[ShownRow], most: int = MOST_ROWS) -> tuple[tuple[ShownRow, ...], str]:
    """As many rows as fit, and a sentence on the others; "" where there are none."""
    left = len(rows) - most
    if left <= 0:
        return tuple(rows), ""
    return tuple(rows[:most]), f" {left} more rows were left out; name fewer to see them."


def nothing(selection: Selection) -> str:
    """Why there is nothing to show of rows without a finished run, and the next command."""
    profile = selection.profile.name
    others = Counter(record.profile for record in selection.store.records if record.profile != profile)
    elsewhere = ", ".join(f"{number} at {name}" for name, number in sorted(others.items()))
    there = f" Records of other profiles: {elsewhere} (--profile)." if others else ""
    return (
        f"No finished run of {selection.target} at profile {profile}.{there} "
        f"Next: harness run {selection.target} --profile {profile}"
    )


def empty(name: str, title: str, columns: tuple[str, ...], missing: str) -> Figure:
    """A figure that has nothing to draw. missing: why, and the next command."""
    return Figure(
        name, title, missing, Numbers(columns, ()), lambda canvas: None, {"column": 1.0, "page": 1.0}, missing=missing
    )


def seeds_text(counts: Iterable[int]) -> str:
    """``3 seeds per row``, ``1 to 3 seeds per row``."""
    numbers = sorted(set(counts))
    if not numbers:
        return "no seeds"
    low, high = numbers[0], numbers[-1]
    if low == high:
        return f"{low} seed per row" if low == 1 else f"{low} seeds per row"
    return f"{low} to {high} seeds per row"
