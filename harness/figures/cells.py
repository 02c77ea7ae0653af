"""Ours minus the paper's for each number of a table, with its interval, the equivalence band and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from harness.figures import style
from harness.figures.figure import Cell, Figure, Numbers
from harness.figures.rows.panels import heights, row_panels, width_of
from harness.figures.rows.shown import MOST_ROWS, empty, labels
from harness.planning.selection import TEST_DEV, Selection
from harness.registry.declarations import METRICS
from harness.verdicts.judge import DELTA, CellVerdict, judge_cell
from harness.verdicts.runs import ProfileRuns, RowRuns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

COLUMNS: Final = (
    "row",
    "metric",
    "n",
    "ours",
    "paper",
    "difference",
    "low",
    "high",
    "band",
    "verdict",
    "provisional",
)
OUTCOMES: Final = ("reproduced", "consistent", "inconclusive", "not reproduced")  # in the legend
_LEGEND: Final = 0.4  # inches


@dataclass(frozen=True)
class CellRow:
    """A row with published numbers. waits: why it has no verdict; "" where it has."""

    ref: str
    published: Mapping[str, float]
    verdicts: Mapping[str, CellVerdict]
    waits: str


def figure(selection: Selection) -> Figure:
    """Every row of the target that the paper has numbers for and that is trained here."""
    profile, title = selection.profile.name, f"Ours minus the paper's at profile {selection.profile.name}"
    rows = cell_rows(selection)
    missing = _missing(selection, rows)
    if missing:
        return empty("cells", title, COLUMNS, missing)
    shown, left = rows[:MOST_ROWS], len(rows) - MOST_ROWS
    return Figure(
        name="cells",
        title=title,
        caption=_caption(profile, shown) + (f" {left} more rows were left out; name fewer." if left > 0 else ""),
        numbers=Numbers(COLUMNS, [line for row in rows for line in _numbers(row)]),
        draw=lambda canvas: _draw(canvas, shown),
        height=heights(len(shown), len(METRICS), _LEGEND),
    )


def _missing(selection: Selection, rows: Sequence[CellRow]) -> str:
    profile = selection.profile
    command = f"harness run {selection.target} --profile paper"
    if not profile.compare_with_paper:
        comparing = ", ".join(
            name for name in sorted(selection.registry.profiles) if selection.registry.profile(name).compare_with_paper
        )
        return (
            f"The numbers of profile {profile.name} ({profile.title}) are of another scale than the paper's, so they "
            f"are never compared with them; its claims are: harness figure claims {selection.target} --profile "
            f"{profile.name}. Profiles that are compared: {comparing}. This would fill it: {command}"
        )
    if selection.departures:
        return f"With {selection.departures} the runs are not the paper's, so nothing is compared. Leave it out."
    if not rows:
        return (
            f"The paper has no numbers for {selection.target}. Next: harness figure cells all --profile {profile.name}"
        )
    if not any(row.verdicts for row in rows):
        found = "; ".join(sorted({f"{row.ref}: {row.waits}" for row in rows if row.waits != "no run"}))
        why = f" ({found})" if found else ""
        return (
            f"No number of {selection.target} was measured at profile {profile.name}{why}. This would fill it: "
            f"harness run {selection.target} --profile {profile.name}; its cost: harness plan {selection.target} "
            f"--profile {profile.name}"
        )
    return ""


def cell_rows(selection: Selection) -> list[CellRow]:
    """The target's rows with published numbers, judged as ``harness check`` judges them.

    A row of a test-dev table is judged by the evaluation server's answer only.
    """
    if not selection.profile.compare_with_paper or selection.departures:
        return []
    runs, server = selection.runs(), selection.runs(TEST_DEV)
    rows = []
    for ref in selection.refs:
        table, row = selection.registry.row(ref)
        if row.published is None:
            continue
        test_dev = table.split == "test-dev"
        seen = {**runs, **server} if test_dev else runs
        known = _of_split(selection, seen, test_dev=test_dev, own=ref in selection.registry.own_rows)
        published = dict(zip(METRICS, row.published, strict=True))
        verdicts = {
            metric: judge_cell(ref, metric, number, known)
            for metric, number in published.items()
            if known.values(ref, metric)
        }
        waits = "" if verdicts else "at the server" if test_dev and ref in runs else "no run"
        rows.append(CellRow(ref, published, verdicts, waits))
    return rows


def _of_split(selection: Selection, runs: Mapping[str, RowRuns], *, test_dev: bool, own: bool) -> ProfileRuns:
    found = {ref: row for ref, row in runs.items() if (row.split == "test-dev") == test_dev}
    every = ProfileRuns(found, selection.profile.assumed_sd)
    return every if own else every.without(selection.registry.own_rows)


def _caption(profile: str, rows: Sequence[CellRow]) -> str:
    judged = [verdict for row in rows for verdict in row.verdicts.values()]
    seeds = sorted({verdict.n for verdict in judged})
    n = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    counts = ", ".join(
        f"{number} {outcome}" for outcome in OUTCOMES if (number := sum(v.outcome == outcome for v in judged))
    )
    assumed = (
        " A dotted interval rests on an assumed deviation, or on that of other rows."
        if any(v.provisional for v in judged)
        else ""
    )
    waiting = [row.ref for row in rows if row.waits]
    pending = f" Without a number: {', '.join(waiting)}." if waiting else ""
    return (
        f"Our mean minus the paper's number at profile {profile} ({n} seed{'s' if n != '1' else ''} per row), in AP "
        "points, with 95% intervals that hold our seeds' scatter, that of the paper's single run, and its rounding. "
        f"Shaded: what was declared beforehand to be the same number, {DELTA['AP']:g} points either way, "
        f"{DELTA['APS']:g} for the sizes of objects. Verdicts of {len(judged)} numbers: {counts}.{assumed}{pending}"
    )


def _numbers(row: CellRow) -> list[tuple[Cell, ...]]:
    lines: list[tuple[Cell, ...]] = []
    for metric, paper in row.published.items():
        verdict = row.verdicts.get(metric)
        if verdict is None:
            lines.append((row.ref, metric, 0, None, paper, None, None, None, DELTA[metric], row.waits, None))
            continue
        said = (verdict.outcome, "yes" if verdict.provisional else "no")
        ends = _interval(verdict)
        lines.append((row.ref, metric, verdict.n, verdict.mean, paper, verdict.difference, *ends, DELTA[metric], *said))
    return lines


def _interval(verdict: CellVerdict) -> tuple[float | None, float | None]:
    if verdict.difference is None or verdict.half_width is None:
        return None, None
    return verdict.difference - verdict.half_width, verdict.difference + verdict.half_width


def _draw(canvas: Canvas, rows: Sequence[CellRow]) -> None:
    names = labels(row.ref for row in rows)
    panels = row_panels(canvas, [names[row.ref] for row in rows], METRICS)
    for axes, metric in zip(panels, METRICS, strict=True):
        _draw_metric(axes, metric, rows)
    canvas.supxlabel("ours minus the paper's, AP points", fontsize=style.POINTS)
    beside = 2 if width_of(canvas) == "column" else 4
    canvas.legend(handles=_legend(rows), loc="outside upper center", ncols=beside, handletextpad=0.2)


def _legend(rows: Sequence[CellRow]) -> list[Any]:
    from matplotlib.lines import Line2D

    seen = {verdict.outcome for row in rows for verdict in row.verdicts.values()}
    return [
        Line2D([], [], linestyle="none", label=outcome, **style.OUTCOMES[outcome].point())
        for outcome in OUTCOMES
        if outcome in seen
    ]


def _draw_metric(axes: Axes, metric: str, rows: Sequence[CellRow]) -> None:
    axes.axvspan(-DELTA[metric], DELTA[metric], color=style.FAINT, alpha=style.BAND, linewidth=0)
    axes.axvline(0.0, **style.reference())
    for at, row in enumerate(rows):
        verdict = row.verdicts.get(metric)
        if verdict is None or verdict.difference is None:
            box = {"facecolor": style.PAPER, "edgecolor": "none", "pad": 0.5}
            words = row.waits or "none"
            axes.annotate(words, (0.0, at), ha="center", va="center", color=style.FAINT, bbox=box)
            continue
        mark = style.OUTCOMES[verdict.outcome]
        low, high = _interval(verdict)
        if low is not None and high is not None:
            axes.plot([low, high], [at, at], color=mark.colour, linestyle=":" if verdict.provisional else "-")
        axes.plot([verdict.difference], [at], linestyle="none", **mark.point())
