"""A table of the paper filled with our runs: labels, our numbers, the paper's beside them; at its scale, verdicts."""

from __future__ import annotations

import re
import statistics
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from msgspec.structs import replace

from harness.registry.declarations import METRICS, Profile, Row, Table
from harness.status.in_flight import InFlight
from harness.verdicts.estimates import Spread
from harness.verdicts.judge import DELTA, CellVerdict, judge_cell
from harness.verdicts.runs import ProfileRuns, RowRuns

Status = Literal["measured", "pending", "not at this scale", "awaiting server", "cited"]
State = Literal["pending", "running", "stopped", "provisional", "final", ""]


@dataclass(frozen=True)
class Mean:
    """Mean and, from two seeds on, deviation of one metric in percent, unrounded."""

    mean: float
    sd: float | None


@dataclass(frozen=True)
class SoFar:
    """The mean AP (percent) of n runs of a row after the same iteration, on their way: no result."""

    iteration: int
    ap: float
    n: int


@dataclass(frozen=True)
class RowView:
    """A line: ``ours`` and ``published`` by metric; ``verdicts`` by metric where numbers are compared.

    ``also``: other rows of the paper that the same trainings fill. ``in_flight``: begun runs without a record.
    ``wanted``: the most seeds that a row of the table has or will have; 0 where nothing is in flight. ``so_far``: of
    the runs that go on and of finished ones, after an iteration that is the same for every row of the table.
    """

    ref: str
    label: tuple[str, ...]
    group: str | None
    status: Status
    seeds: tuple[int, ...]
    ours: Mapping[str, Mean]
    published: Mapping[str, float]
    verdicts: Mapping[str, CellVerdict]
    cited: str | None
    also: tuple[str, ...] = ()
    in_flight: tuple[InFlight, ...] = ()
    wanted: int = 0
    so_far: SoFar | None = None

    @property
    def state(self) -> State:
        """How far the row is. Provisional: seeds are missing, or the verdict rests on an assumed deviation."""
        if self.ours:
            verdict = self.verdicts.get("AP")
            assumed = verdict is not None and verdict.provisional
            return "provisional" if assumed or len(self.seeds) < self.wanted else "final"
        if self.status != "pending":
            return ""
        if not self.in_flight:
            return "pending"
        return "running" if any(item.lives for item in self.in_flight) else "stopped"


@dataclass(frozen=True)
class TableView:
    """A filled table. ``compared``: whether the profile's numbers may stand against the paper's.

    ``settings``: those of the footnotes that list settings on which the sources differ, their heading first.
    """

    id: str
    title: str
    split: str
    profile: str
    scale: str
    compared: bool
    columns: tuple[str, ...]
    rows: tuple[RowView, ...]
    footnotes: tuple[str, ...] = field(default=())
    settings: tuple[str, ...] = ()

    def lines(self) -> list[dict[str, Any]]:
        """One line per row, all with the same keys; numbers are unrounded and in percent, None where there is none."""
        return [self._flat(row) for row in self.rows]

    def _flat(self, row: RowView) -> dict[str, Any]:
        line: dict[str, Any] = {"ref": row.ref, **dict(zip(self.columns, row.label, strict=True))}
        line |= {"status": row.status, "n": len(row.seeds)}
        for metric in METRICS:
            ours = row.ours.get(metric)
            line |= {metric: ours.mean if ours else None, f"{metric} sd": ours.sd if ours else None}
        line |= {f"paper {metric}": row.published.get(metric) for metric in METRICS}
        for metric in METRICS if self.compared else ():
            verdict = row.verdicts.get(metric)
            line |= {
                f"{metric} difference": verdict.difference if verdict else None,
                f"{metric} half width": verdict.half_width if verdict else None,
                f"{metric} verdict": verdict.outcome if verdict else None,
                f"{metric} provisional": verdict.provisional if verdict else None,
            }
        return line | {"cited": row.cited}


def build_table(
    table: Table,
    profile: Profile,
    runs: Mapping[str, RowRuns],
    refs: Collection[str] | None = None,
    notes: tuple[str, ...] = (),
    own: Collection[str] = (),
    departures: str = "",
) -> TableView:
    """Fill ``table`` with what was run at ``profile``.

    ``runs``: every finished row by ref, other tables' too: they share the seed deviation. ``refs``: only these rows.
    ``notes``: footnotes to add. ``own``: the user's own rows; they may use the deviation of the paper's rows, never the
    other way round. Where numbers are compared, a row of a test-dev table takes runs with the server's answer only,
    never minival. ``departures``: the options by which the runs are not the paper's; then nothing is compared.
    """
    if departures:
        profile = replace(profile, compare_with_paper=False)
    compared = profile.compare_with_paper
    test_dev = table.split == "test-dev"
    on_split = {ref: row for ref, row in runs.items() if not compared or (row.split == "test-dev") == test_dev}
    every = ProfileRuns(on_split, profile.assumed_sd)
    papers = every.without(own)
    chosen = [row for row in table.rows if refs is None or f"{table.id}/{row.id}" in refs]
    runs_of = {f"{table.id}/{row.id}": every if f"{table.id}/{row.id}" in own else papers for row in chosen}
    rows = tuple(_row_view(table, row, runs_of[f"{table.id}/{row.id}"], runs, profile) for row in chosen)
    return TableView(
        id=table.id,
        title=table.title,
        split=table.split,
        profile=profile.name,
        scale=profile.title,
        compared=compared,
        columns=table.columns,
        rows=rows,
        footnotes=(*_own_notes(rows, own), *_footnotes(table, profile, rows, runs_of, departures), *notes),
    )


def _row_view(
    table: Table, row: Row, at_profile: ProfileRuns, runs: Mapping[str, RowRuns], profile: Profile
) -> RowView:
    ref = f"{table.id}/{row.id}"
    found = at_profile.rows.get(ref)
    ours = {}
    for metric in METRICS:
        if values := at_profile.values(ref, metric):
            ours[metric] = Mean(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)
    status: Status = "cited" if row.cited else "measured" if ours else "pending"
    if row.profiles is not None and profile.name not in row.profiles:
        status = "not at this scale"
    compared = profile.compare_with_paper
    if status == "pending" and ref in runs and table.split == "test-dev" and compared:
        status = "awaiting server"
    published = dict(zip(METRICS, row.published, strict=True)) if row.published else {}
    verdicts = (
        {metric: judge_cell(ref, metric, published[metric], at_profile) for metric in ours if metric in published}
        if compared
        else {}
    )
    return RowView(
        ref=ref,
        label=row.cells,
        group=row.group,
        status=status,
        seeds=found.seeds if found and ours else (),
        ours=ours,
        published=published,
        verdicts=verdicts,
        cited=row.cited,
    )


def _own_notes(rows: tuple[RowView, ...], own: Collection[str]) -> list[str]:
    """Which rows are the user's own, where there are any."""
    mine = [" ".join(row.label) for row in rows if row.ref in own]
    if not mine:
        return []
    if len(mine) == len(rows):
        return ["A table of your own: no verdict on the paper counts it."]
    return [f"Rows of your own, which no verdict on the paper counts: {', '.join(mine)}."]


def _footnotes(
    table: Table, profile: Profile, rows: tuple[RowView, ...], runs_of: Mapping[str, ProfileRuns], departures: str
) -> list[str]:
    """What a reader must know to read the numbers, and nothing that this table does not show.

    ``runs_of``: by row, the runs that its verdicts may rest on.
    """
    measured = [row for row in rows if row.status == "measured"]
    options = f" {departures}" if departures else ""
    notes = [f"Profile {profile.name}: {profile.title}. COCO box metrics in percent; n: seeds of a row."]
    if any(len(row.seeds) > 1 for row in measured):
        notes.append("±: deviation between seeds.")
    notes += _spread_notes(measured, runs_of)
    if profile.compare_with_paper:
        if any(row.verdicts for row in rows):
            notes.append(
                "diff: ours - paper, ± its 95% interval (our seeds, the paper's single run, its rounding). Verdict: "
                f"reproduced if the 90% interval lies within ±{DELTA['AP']} AP, not reproduced if wholly outside; else "
                "consistent if chance explains the difference, inconclusive if not."
            )
    elif departures:
        notes.append(
            f"With {departures} these runs are not the paper's: no verdict counts them. (In parentheses): the paper's "
            "numbers of the unchanged rows."
        )
    elif any(row.published for row in rows):
        notes.append(
            f"(In parentheses): the paper's numbers, {table.split} of COCO, another scale; not comparable with ours. "
            f"What can be compared are the claims: harness check --profile {profile.name}"
        )
    if table.split == "test-dev" and not profile.compare_with_paper and measured:
        answered = any(runs_of[row.ref].rows[row.ref].split == "test-dev" for row in measured)
        exception = ", except where the server answered" if answered else ""
        notes.append(f"Ours: the profile's own test images, not test-dev{exception}.")
    if any(row.status == "awaiting server" for row in rows):
        notes.append("Awaiting server: trained, but test-dev has no public labels; never filled by minival.")
    if any(row.status == "cited" for row in rows):
        notes.append("Cited: other papers' numbers as this one quotes them; nothing to train.")
    if any(row.status == "not at this scale" for row in rows):
        notes.append(f"Not at this scale: profile {profile.name} itself sets what the row compares.")
    if pending := [row.ref for row in rows if row.status == "pending"]:
        target = pending[0] if departures else table.id  # an option may not fit every row
        notes.append(f"Pending: no finished run; next: harness run {target} --profile {profile.name}{options}")
    return notes


def _spread_notes(measured: list[RowView], runs_of: Mapping[str, ProfileRuns]) -> list[str]:
    """How far seeds scatter, per family of rows, and which rows are so low that they were left out."""
    spreads: dict[str, Spread | None] = {}
    for row in measured:
        at_profile = runs_of[row.ref]
        if row.ref not in at_profile.collapsed:
            family = ", ".join(filter(None, at_profile.family(row.ref)))
            spreads.setdefault(family, at_profile.spread(row.ref, "AP"))
    found: dict[str, dict[str, None]] = {}
    for family, spread in spreads.items():
        if spread:
            found.setdefault(spread_text(spread), {})[re.sub(r" \(\d+\)$", "", family)] = None
    notes = [f"Seed deviation of AP ({'; '.join(families)}): {text}." for text, families in found.items()]
    if collapsed := [" ".join(row.label) for row in measured if row.ref in runs_of[row.ref].collapsed]:
        notes.append(f"Collapsed (below half of the median AP), left out of that deviation: {', '.join(collapsed)}.")
    return notes


def spread_text(spread: Spread) -> str:
    """The deviation, what it rests on, and how much of it the rows of a seed have in common."""
    if spread.assumed:
        low, high = spread.interval
        return f"{low:.2g} to {high:.2g} assumed, for want of a second seed: provisional"
    if spread.borrowed:
        return (
            f"{spread.sd:.2f}, that of rows with another loss or other settings, for want of a second seed: provisional"
        )
    if spread.num_rows == 1:
        return "each row's own, with n - 1 degrees of freedom"
    share = "" if spread.share is None else f"; {100 * spread.share:.0f}% of the variance is the seed's"
    return f"{spread.sd:.2f}, pooled over {spread.num_rows} rows, {spread.df:.1f} degrees of freedom{share}"
