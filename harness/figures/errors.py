"""What kinds of errors cost AP: per row, the AP that would be won without each of TIDE's six kinds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import asdict

from harness.figures import style
from harness.figures.figure import Cell, Figure, Numbers
from harness.figures.rows.panels import heights, row_panels
from harness.figures.rows.shown import ShownRow, empty, leading, nothing, seeds_text, shown_rows
from harness.planning.selection import Selection

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

# Kinds of TIDE (Bolya et al., 2020), in its order, with the words of a panel.
KINDS: Final[dict[str, str]] = {
    "classification": "wrong class",
    "localisation": "poor box",
    "both": "both wrong",
    "duplicate": "duplicate",
    "background": "background",
    "missed": "missed",
}
COLUMNS: Final = ("row", "kind", "seed", "lost_AP")
_LEGEND: Final = 0.25  # inches


def figure(selection: Selection) -> Figure:
    """The target's rows whose records say it; of exactly two rows, their difference too."""
    title = f"AP lost by kind of error at profile {selection.profile.name}"
    found = shown_rows(selection)
    known = [row for row in found if lost_by_seed(row)]
    if not known:
        return empty("errors", title, COLUMNS, _missing(selection, found))
    rows, left = leading(known)
    unknown = [row.label for row in found if row not in known]
    told = f" Of records of format 1, which do not say it: {', '.join(unknown)}." if unknown else ""
    pair = len(rows) == 2
    return Figure(
        name="errors",
        title=title,
        caption=_caption(selection, rows) + told + left,
        numbers=Numbers(COLUMNS, [line for row in rows for line in _numbers(row)]),
        draw=(lambda canvas: _draw_pair(canvas, rows[0], rows[1])) if pair else (lambda canvas: _draw(canvas, rows)),
        height=heights(len(KINDS), 2, _LEGEND) if pair else heights(len(rows), len(KINDS)),
    )


def lost_by_seed(row: ShownRow) -> dict[int, Mapping[str, float]]:
    """Seed -> AP lost by kind; without the records that do not say it."""
    return {
        record.job.train.seed: {kind: float(asdict(record.lost_ap)[kind]) for kind in KINDS}
        for record in row.records
        if record.lost_ap is not None
    }


def _missing(selection: Selection, found: Sequence[ShownRow]) -> str:
    if not found:
        return nothing(selection)
    number = sum(len(row.records) for row in found)
    return (
        f"The {number} records of {selection.target} at profile {selection.profile.name} are of format 1, which does "
        f"not say what kinds of errors cost AP. New runs do: harness run {selection.target} --profile "
        f"{selection.profile.name} --fresh"
    )


def _caption(selection: Selection, rows: Sequence[ShownRow]) -> str:
    have = seeds_text(len(lost_by_seed(row)) for row in rows)
    spread = (
        "; lines reach from the lowest seed to the highest" if any(len(lost_by_seed(row)) > 1 for row in rows) else ""
    )
    pair = ""
    if len(rows) == 2:
        pair = (
            f" Right: {rows[0].label} minus {rows[1].label}, a point per seed that both have and a bar at their mean."
        )
    return (
        f"AP (at IoU 0.5, in points) that each row would win if all errors of one kind were mended, after TIDE, at "
        f"profile {selection.profile.name} ({have}): the mean over seeds{spread}. The kinds: right box but wrong "
        "class; right class but poor box; both wrong; a second detection of an object; a detection of background; "
        f"an object that was missed. They do not add up, since one mended error hides another.{pair}"
    )


def _numbers(row: ShownRow) -> list[tuple[Cell, ...]]:
    return [
        (ref, kind, seed, value)
        for ref in row.refs
        for seed, lost in sorted(lost_by_seed(row).items())
        for kind, value in lost.items()
    ]


def _draw(canvas: Canvas, rows: Sequence[ShownRow]) -> None:
    panels = row_panels(canvas, [row.label for row in rows], list(KINDS.values()))
    for number, (axes, kind) in enumerate(zip(panels, KINDS, strict=True)):
        for at, row in enumerate(rows):
            _draw_range(axes, [lost[kind] for lost in lost_by_seed(row).values()], at, number)
        _from_zero(axes, [lost[kind] for row in rows for lost in lost_by_seed(row).values()])
    canvas.supxlabel("AP lost, points", fontsize=style.POINTS)


def _draw_range(axes: Axes, values: Sequence[float], at: float, number: int, label: str = "") -> None:
    look: dict[str, Any] = {"color": style.series(number)["color"]}
    if len(values) > 1:
        axes.plot([min(values), max(values)], [at, at], **look)
    axes.plot([statistics.fmean(values)], [at], linestyle="none", marker=style.marker(number), label=label, **look)


def _from_zero(axes: Axes, values: Sequence[float]) -> None:
    """So that lengths can be compared. A kind can lose less than nothing: mended, it may hurt."""
    span = max(0.0, *values) - min(0.0, *values) or 1.0
    axes.set_xlim(min(0.0, *values) - (0.08 * span if min(values) < 0 else 0.0), max(0.0, *values) + 0.08 * span)


def _draw_pair(canvas: Canvas, a: ShownRow, b: ShownRow) -> None:
    left, right = row_panels(canvas, list(KINDS.values()), ("AP lost, points", "difference"))
    lost_a, lost_b = lost_by_seed(a), lost_by_seed(b)
    right.axvline(0.0, **style.reference())
    for at, kind in enumerate(KINDS):
        for number, (row, lost, offset) in enumerate(((a, lost_a, -0.15), (b, lost_b, 0.15))):
            label = row.label if at == 0 else ""
            _draw_range(left, [values[kind] for values in lost.values()], at + offset, number, label)
        both = [lost_a[seed][kind] - lost_b[seed][kind] for seed in sorted(lost_a.keys() & lost_b.keys())]
        if both:
            right.plot(
                both, [at] * len(both), linestyle="none", marker="o", color=style.INK, markerfacecolor=style.PAPER
            )
            mean = statistics.fmean(both)
            right.plot([mean, mean], [at - 0.3, at + 0.3], color=style.INK)
    _from_zero(left, [value for row in (a, b) for lost in lost_by_seed(row).values() for value in lost.values()])
    canvas.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
