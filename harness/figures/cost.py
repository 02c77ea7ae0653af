"""What runs cost: hours of a GPU or CPU per run of each row, in parts, and the estimate where there is no run yet."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from detector.runs.record import Record
from harness.figures import style
from harness.figures.figure import Cell, Figure, Numbers
from harness.figures.rows.panels import heights, row_panels
from harness.figures.rows.shown import MOST_ROWS, empty, labels, nothing, shown_rows
from harness.planning.costs import run_cost
from harness.planning.rates import Unit, processes_of, unit_of
from harness.planning.selection import Selection

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

# In the order of a bar. Training: without waiting for data where that was noted.
PARTS: Final = ("training", "waiting for data", "evaluation")
COLUMNS: Final = ("row", "device", "runs", "basis", "part", "hours")
_HATCHES: Final = ("", "////", "\\\\\\\\")  # no dots: in SVG each is a path of curves, half a megabyte together
_ESTIMATE: Final = "xxxx"
_LEGEND: Final = 0.42  # inches


@dataclass(frozen=True)
class RowCost:
    """Device-hours of one run of a row, by part. runs: those it is the mean of; 0: an estimate of what is left to do.

    basis: where the hours come from. refs: rows that are the same run.
    """

    refs: tuple[str, ...]
    label: str
    unit: Unit
    runs: int
    basis: str
    hours: dict[str, float]

    @property
    def total(self) -> float:
        """All parts together."""
        return sum(self.hours.values())


def figure(selection: Selection) -> Figure:
    """The target's rows: what their runs took, and for those without one what planning expects."""
    title = f"Cost of a run at profile {selection.profile.name}"
    costs, unknown = row_costs(selection)
    if not costs:
        why = f"{nothing(selection)} What a run takes is unknown too: no run of its backbone was measured."
        return empty("cost", title, COLUMNS, why)
    shown, left = costs[:MOST_ROWS], len(costs) - MOST_ROWS
    told = f" Of unknown cost: {', '.join(unknown)}." if unknown else ""
    told += f" {left} more rows were left out; name fewer." if left > 0 else ""
    return Figure(
        name="cost",
        title=title,
        caption=_caption(selection, costs) + told,
        numbers=Numbers(COLUMNS, [line for cost in costs for line in _numbers(cost)]),
        draw=lambda canvas: _draw(canvas, shown),
        height=heights(len(shown), len({cost.unit for cost in shown}), _LEGEND),
    )


def row_costs(selection: Selection) -> tuple[list[RowCost], list[str]]:
    """Of each of the target's rows, in its order; and the rows whose cost nobody knows."""
    measured = [_measured(row.refs, row.label, row.records) for row in shown_rows(selection)]
    known = {ref for cost in measured for ref in cost.refs}
    estimated, unknown = _estimated(selection, [ref for ref in selection.refs if ref not in known])
    order = {ref: i for i, ref in enumerate(selection.refs)}
    return sorted([*measured, *estimated], key=lambda cost: order[cost.refs[0]]), unknown


def _measured(refs: tuple[str, ...], label: str, records: Sequence[Record]) -> RowCost:
    """Means over the runs; of runs on several kinds of devices, those on the most usual one."""
    unit = statistics.mode(unit_of(record) for record in records)
    alike = [record for record in records if unit_of(record) == unit]
    hours = {part: statistics.fmean(run_hours(record)[part] for record in alike) for part in PARTS}
    return RowCost(refs, label, unit, len(alike), "measured", hours)


def run_hours(record: Record) -> dict[str, float]:
    """Device-hours of one run by part. What was not noted of waiting for data is in the training."""
    devices = processes_of(record)
    waiting = record.timing.data_share * record.train_seconds if record.timing is not None else 0.0
    seconds = (record.train_seconds - waiting, waiting, record.eval_seconds)
    return {part: devices * length / 3600 for part, length in zip(PARTS, seconds, strict=True)}


def _estimated(selection: Selection, refs: list[str]) -> tuple[list[RowCost], list[str]]:
    """What is left to do of seed 0 of rows without a finished run, each evaluation once; and rows of unknown cost."""
    if not refs:
        return [], []
    same: dict[str, list[str]] = {}
    jobs = {}
    for cell in selection.plan_of(refs, 1).cells:
        same.setdefault(cell.job.id, []).append(cell.ref)
        jobs[cell.job.id] = cell.job
    rates, names = selection.rates(), labels(selection.refs)
    found, unknown = [], []
    for key, alike in same.items():
        train = jobs[key].train
        cost = run_cost(rates, train, [jobs[key]], selection.store.run_dir(train.id))
        training, testing = cost.train_seconds.value, cost.test_seconds.value
        if training is None or testing is None:
            unknown += alike
            continue
        seconds = (training, 0.0, testing)
        hours = {part: cost.devices * length / 3600 for part, length in zip(PARTS, seconds, strict=True)}
        label = " = ".join(names[ref] for ref in alike)
        found.append(RowCost(tuple(alike), label, cost.unit, 0, cost.seconds_per_iteration.whole_text(), hours))
    return found, unknown


def _caption(selection: Selection, costs: Sequence[RowCost]) -> str:
    measured = [cost for cost in costs if cost.runs]
    parts = []
    for unit in dict.fromkeys(cost.unit for cost in measured):
        of_unit = [cost for cost in measured if cost.unit == unit]
        number = sum(cost.runs for cost in of_unit)
        spent = sum(cost.runs * cost.total for cost in of_unit)
        rows = f"{len(of_unit)} row" + ("s" if len(of_unit) > 1 else "")
        runs = f"{number} run" + ("s" if number > 1 else "")
        parts.append(f"{runs} of {rows}, {hours_text(spent)} {unit}-hours in all")
    estimated = sorted({cost.basis for cost in costs if not cost.runs})
    expected = ""
    if estimated:
        why = "; ".join(estimated)
        expected = f" Crossed: no finished run; what is left of one, {why}. A training that rows share is in each."
    unnoted = (
        " Waiting for data is part of the training where records do not say it."
        if any(cost.runs and not cost.hours[PARTS[1]] for cost in costs)
        else ""
    )
    have = f": the mean of its finished runs ({'; '.join(parts)})" if parts else ""
    return f"Device-hours of one run of each row at profile {selection.profile.name}{have}.{unnoted}{expected}"


def _numbers(cost: RowCost) -> list[tuple[Cell, ...]]:
    return [
        (ref, cost.unit, cost.runs, cost.basis, part, hours) for ref in cost.refs for part, hours in cost.hours.items()
    ]


def _draw(canvas: Canvas, costs: Sequence[RowCost]) -> None:
    units = list(dict.fromkeys(cost.unit for cost in costs))
    panels = row_panels(canvas, [cost.label for cost in costs], [f"{unit}-hours per run" for unit in units])
    for axes, unit in zip(panels, units, strict=True):
        axes.grid(visible=False)
        for at, cost in enumerate(costs):
            if cost.unit == unit:
                _draw_bar(axes, at, cost)
        axes.set_xlim(0, 1.35 * max(cost.total for cost in costs if cost.unit == unit) or 1.0)
    canvas.legend(handles=_legend(costs), loc="outside lower center", ncols=2)


def _draw_bar(axes: Axes, at: int, cost: RowCost) -> None:
    left = 0.0
    for number, (part, hours) in enumerate(cost.hours.items()):
        if hours:
            axes.barh([at], [hours], left=left, height=0.62, label=part, **_look(number, estimated=not cost.runs))
            left += hours
    runs = f"n={cost.runs}" if cost.runs else "estimate"
    axes.annotate(f"{hours_text(cost.total)} {runs}", (left, at), (2, 0), textcoords="offset points", va="center")


def hours_text(hours: float) -> str:
    """Two digits, and no power of ten."""
    return f"{hours:.0f}" if hours >= 10 else f"{hours:.2g}"


def _look(number: int, *, estimated: bool) -> dict[str, Any]:
    """Of a part: colour and, for print in grey, a hatch of its own; estimates are empty bars."""
    colour = style.COLOURS[number]
    if estimated:
        return {"facecolor": style.PAPER, "edgecolor": colour, "hatch": _HATCHES[number] or _ESTIMATE}
    return {"facecolor": colour, "edgecolor": style.PAPER, "hatch": _HATCHES[number]}


def _legend(costs: Sequence[RowCost]) -> list[Any]:
    from matplotlib.patches import Patch

    used = [number for number, part in enumerate(PARTS) if any(cost.runs and cost.hours[part] for cost in costs)]
    handles = [Patch(label=PARTS[number], **_look(number, estimated=False)) for number in used]
    if any(not cost.runs for cost in costs):
        handles.append(Patch(label="estimated", **_look(0, estimated=True)))
    return handles
