"""How trainings went: losses, learning rate and AP so far, a line per row with the band of its seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from harness.figures import style
from harness.figures.figure import Cell, Figure, Numbers, Width
from harness.figures.rows.panels import cut, width_of
from harness.figures.rows.shown import empty, nothing
from harness.figures.rows.training import SO_FAR, RowCurves, Training, row_curves
from harness.planning.rows import loss_name
from harness.planning.selection import Selection

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

COLUMNS: Final = ("panel", "row", "kind", "seeds", "iteration", "mean", "lowest", "highest")
MOST_ROWS: Final = 14  # lines that can be told apart: seven colours, twice
# By curve. Of the classification loss there is one per loss, before these.
PANELS: Final = {"bbox_regression": "box regression loss", "lr": "learning rate", SO_FAR: "AP so far"}
_PANEL: Final[dict[Width, float]] = {"column": 1.35, "page": 1.6}  # inches of height
_BESIDE: Final[dict[Width, int]] = {"column": 1, "page": 2}
_LEGEND_LINE: Final = 0.15  # inches
_NAMES_BESIDE: Final[dict[Width, int]] = {"column": 2, "page": 4}
_LETTERS: Final = 26  # of a name in the legend


@dataclass(frozen=True)
class CurveLine:
    """One line of a panel. kind: finished (mean of ``seeds``), or unfinished (one seed). low, high: over the seeds."""

    row: int
    label: str
    kind: str
    seeds: tuple[int, ...]
    iterations: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def figure(selection: Selection) -> Figure:
    """The target's rows with trainings, finished or not."""
    title = f"Training curves at profile {selection.profile.name}"
    found = row_curves(selection)
    known = [row for row in found if row.finished or row.unfinished]
    if not known:
        return empty("curves", title, COLUMNS, _missing(selection, found))
    shown, left = known[:MOST_ROWS], len(known) - MOST_ROWS
    panels = curve_panels(shown)
    more = f" {left} more rows were left out; name fewer to see them." if left > 0 else ""
    return Figure(
        name="curves",
        title=title,
        caption=_caption(selection, shown, found, panels) + more,
        numbers=Numbers(
            COLUMNS, [cells for name, lines in panels.items() for line in lines for cells in _cells(name, line)]
        ),
        draw=lambda canvas: _draw(canvas, shown, panels),
        height={"column": _height(shown, panels, "column"), "page": _height(shown, panels, "page")},
    )


def curve_panels(rows: Sequence[RowCurves]) -> dict[str, list[CurveLine]]:
    """Lines by panel. The classification losses of other names are other functions: each has a panel of its own."""
    panels: dict[str, list[CurveLine]] = {}
    names = list(dict.fromkeys(loss_name(row.job) for row in rows))
    for name in names:
        title = "classification loss" + (f": {name}" if len(names) > 1 else "")
        panels[title] = [
            line
            for at, row in enumerate(rows)
            if loss_name(row.job) == name
            for line in _lines(at, row, "classification")
        ]
    for curve, title in PANELS.items():
        panels[title] = [line for at, row in enumerate(rows) for line in _lines(at, row, curve)]
    return {title: lines for title, lines in panels.items() if lines}


def _lines(at: int, row: RowCurves, curve: str) -> list[CurveLine]:
    whole = [training for training in row.finished if curve in training.curves]
    lines = [_joined(at, row, whole, curve)] if whole else []
    return lines + [
        _joined(at, row, [training], curve, kind="unfinished")
        for training in row.unfinished
        if curve in training.curves
    ]


def _joined(at: int, row: RowCurves, trainings: Sequence[Training], curve: str, kind: str = "finished") -> CurveLine:
    """Mean, lowest and highest of the seeds, at the iterations of the one with most points.

    The others are interpolated where they were logged at other iterations.
    """
    import numpy as np

    grid = max((sorted(training.curves[curve]) for training in trainings), key=len)
    values = []
    for training in trainings:
        points = sorted(training.curves[curve].items())
        values.append(np.interp(grid, [x for x, _ in points], [y for _, y in points]).tolist())
    columns = list(zip(*values, strict=True))
    return CurveLine(
        row=at,
        label=row.label,
        kind=kind,
        seeds=tuple(training.seed for training in trainings),
        iterations=tuple(grid),
        mean=tuple(statistics.fmean(column) for column in columns),
        low=tuple(min(column) for column in columns),
        high=tuple(max(column) for column in columns),
    )


def _missing(selection: Selection, found: Sequence[RowCurves]) -> str:
    if not found:
        return nothing(selection)
    number, profile = _trainings(sum(row.unknown for row in found)), selection.profile.name
    return (
        f"Nothing is known of how {number} of {selection.target} at profile {profile} went: their "
        "records are of format 1, without curves, and their runs' folders are not here. New runs have them: "
        f"harness run {selection.target} --profile {profile}"
    )


def _caption(
    selection: Selection, rows: Sequence[RowCurves], found: Sequence[RowCurves], panels: dict[str, list[CurveLine]]
) -> str:
    counts = sorted({len(row.finished) for row in rows if row.finished})
    have = "" if not counts else str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    seeds = f" ({have} finished seed{'' if have == '1' else 's'} per row)" if have else ""
    band = (
        " Lines are means over seeds, bands reach from the lowest to the highest." if counts and counts[-1] > 1 else ""
    )
    parts = [f"Trainings at profile {selection.profile.name}{seeds}, as they were logged.{band}"]
    if any(row.unfinished for row in rows):
        told = ", ".join(
            f"{row.label} seed {training.seed} at {training.done:.0%}" for row in rows for training in row.unfinished
        )
        parts.append(f"Thin lines that end in a circle are not finished: {told}.")
    if sum(title.startswith("classification") for title in panels) > 1:
        parts.append(
            "Losses of other names are other functions: their heights cannot be compared, so each has a panel."
        )
    parts.append("Within one, other parameters (L, rho, pairs) are another scale too: compare shapes.")
    if PANELS[SO_FAR] not in panels:
        parts.append("No training was evaluated on its way, or its folder is not here: no AP so far.")
    unknown = [row.label for row in found if row.unknown]
    if unknown:
        number = _trainings(sum(row.unknown for row in found))
        parts.append(f"Without curves, since their records are of format 1: {number} of {', '.join(unknown)}.")
    return " ".join(parts)


def _trainings(number: int) -> str:
    return f"{number} training" if number == 1 else f"{number} trainings"


def _cells(panel: str, line: CurveLine) -> list[tuple[Cell, ...]]:
    seeds = " ".join(map(str, line.seeds))
    points = zip(line.iterations, line.mean, line.low, line.high, strict=True)
    return [(panel, line.label, line.kind, seeds, *point) for point in points]


def _height(rows: Sequence[RowCurves], panels: dict[str, list[CurveLine]], width: Width) -> float:
    grid = -(-len(panels) // _BESIDE[width])
    return grid * _PANEL[width] + -(-len(rows) // _NAMES_BESIDE[width]) * _LEGEND_LINE + 0.1


def _draw(canvas: Canvas, rows: Sequence[RowCurves], panels: dict[str, list[CurveLine]]) -> None:
    width = width_of(canvas)
    beside = min(_BESIDE[width], len(panels))
    grid = canvas.subplots(-(-len(panels) // beside), beside, squeeze=False).ravel().tolist()
    for axes in grid[len(panels) :]:
        axes.remove()
    for number, (axes, (title, lines)) in enumerate(zip(grid, panels.items(), strict=False)):
        axes.set_title(title)
        for line in lines:
            _draw_line(axes, line, marker="." if title == PANELS[SO_FAR] else "")
        if number >= len(panels) - beside:  # the lowest of its column
            axes.set_xlabel("iteration")
    canvas.legend(handles=_legend(rows), loc="outside lower center", ncols=_NAMES_BESIDE[width])


def _draw_line(axes: Axes, line: CurveLine, marker: str) -> None:
    look = look_of(line.row) | {"marker": marker}
    if line.kind == "unfinished":
        axes.plot(line.iterations, line.mean, **look | {"linewidth": style.HAIR})
        end = {"marker": "o", "color": look["color"], "markerfacecolor": style.PAPER}
        axes.plot(line.iterations[-1:], line.mean[-1:], **end)
        return
    one = len(line.seeds) == 1
    axes.plot(line.iterations, line.mean, **look | ({"linewidth": style.HAIR} if one else {}))
    if not one:
        axes.fill_between(line.iterations, line.low, line.high, color=look["color"], alpha=style.BAND, linewidth=0)


def look_of(number: int) -> dict[str, Any]:
    """Of a row: after seven the colours begin again, with other dashes."""
    turn = number // len(style.COLOURS)
    return style.series(number) | {"linestyle": style.series(number + turn)["linestyle"]}


def _legend(rows: Sequence[RowCurves]) -> list[object]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], label=cut(row.label, _LETTERS), **look_of(at)) for at, row in enumerate(rows)]
