"""Seeds are blocks: each row's AP by seed, the same seed connected across the rows of a family."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from harness.figures import style
from harness.figures.figure import Cell, Figure, Numbers
from harness.figures.rows.panels import heights, row_panels
from harness.figures.rows.shown import ShownRow, empty, leading, nothing, profile_runs, seeds_text, shown_rows
from harness.planning.selection import Selection
from harness.verdicts.blocks import Blocks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

COLUMNS: Final = ("row", "family", "seed", "AP", "minus_row_mean", "row_mean", "row_sd", "family_sd", "seed_share")
TITLES: Final = ("AP", "minus the row's mean")
WIDTHS: Final = (1.0, 1.5)  # of the panels, to each other
NAMED_SEEDS: Final = 6  # that have a line of their own in the legend; more are thin and alike
_LEGEND: Final = 0.25  # inches


@dataclass(frozen=True)
class Family:
    """Rows of one loss and schedule, which share a deviation. blocks: None where no row has two seeds."""

    name: str
    rows: tuple[ShownRow, ...]
    blocks: Blocks | None


def figure(selection: Selection) -> Figure:
    """The target's rows with finished runs, by family."""
    title = f"AP by seed at profile {selection.profile.name}"
    rows, left = leading(shown_rows(selection))
    if not rows:
        return empty("seeds", title, COLUMNS, nothing(selection))
    families = by_family(selection, rows)
    ordered = [row for family in families for row in family.rows]
    return Figure(
        name="seeds",
        title=title,
        caption=_caption(selection, families) + left,
        numbers=Numbers(COLUMNS, [line for family in families for line in _numbers(family)]),
        draw=lambda canvas: _draw(canvas, families),
        height=heights(len(ordered) + len(families), len(_panels(families)), _LEGEND),
    )


def by_family(selection: Selection, rows: Sequence[ShownRow]) -> list[Family]:
    """The rows by family, each in the place of its first row; a row that collapsed is a family of its own."""
    runs = profile_runs(selection, own=True)
    found: dict[tuple[str, ...], list[ShownRow]] = {}
    for row in rows:
        key = runs.family(row.ref) if row.ref in runs.rows else ("other inputs than most rows", row.ref)
        found.setdefault(key, []).append(row)
    return [
        Family(_name(key), tuple(members), runs.blocks(members[0].ref, "AP") if members[0].ref in runs.rows else None)
        for key, members in found.items()
    ]


def _name(key: tuple[str, ...]) -> str:
    """Loss and pool and, of a row that is alone in its family, the row."""
    pool, loss, *alone = key
    return f"{loss}, {pool}" + (f", {alone[0].split('/')[-1]} (collapsed)" if alone else "")


def _caption(selection: Selection, families: Sequence[Family]) -> str:
    counts = [len(row.by_seed("AP")) for family in families for row in family.rows]
    said = " ".join(f"{family.name}: {said}." for family in families if (said := _share_text(family.blocks)))
    how = (
        "A line connects the runs of one seed, which have the same initial weights and order of the data in every row "
        "of a family; bars are the means. Where lines run parallel, the scatter is the seed's and cancels in "
        "differences of rows."
    )
    alone = " With one seed per row there is no deviation to see." if max(counts) < 2 else ""
    return f"AP of every run at profile {selection.profile.name} ({seeds_text(counts)}). {how} {said}".strip() + alone


def _share_text(found: Blocks | None) -> str:
    if found is None:
        return ""
    text = f"deviation {found.total**0.5:.2f} AP"
    if found.share is None:
        return text
    low, high = found.share_interval()
    return f"{text}, of its variance {found.share:.0%} the seed's (95% interval {low:.0%} to {high:.0%})"


def _numbers(family: Family) -> list[tuple[Cell, ...]]:
    total = family.blocks.total**0.5 if family.blocks else None
    share = family.blocks.share if family.blocks else None
    lines: list[tuple[Cell, ...]] = []
    for row in family.rows:
        values = row.by_seed("AP")
        mean = statistics.fmean(values.values())
        sd = statistics.stdev(values.values()) if len(values) > 1 else None
        lines += [
            (ref, family.name, seed, value, value - mean, mean, sd, total, share)
            for ref in row.refs
            for seed, value in sorted(values.items())
        ]
    return lines


def _panels(families: Sequence[Family]) -> tuple[str, ...]:
    """The second one shows something from two seeds on."""
    most = max(len(row.by_seed("AP")) for family in families for row in family.rows)
    return TITLES if most > 1 else TITLES[:1]


def _draw(canvas: Canvas, families: Sequence[Family]) -> None:
    names = [name for family in families for name in ("", *(row.label for row in family.rows))]
    panels = row_panels(canvas, names, _panels(families), widths=WIDTHS)
    seeds = sorted({seed for family in families for row in family.rows for seed in row.by_seed("AP")})
    for axes in panels[1:]:
        axes.axvline(0.0, **style.reference())
    at = 0
    for family in families:
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "xytext": (2, 0), "textcoords": "offset points"}
        heading = panels[0].annotate(_heading(family), (0, at), **place, va="center", color=style.FAINT)
        heading.set_in_layout(False)  # it reaches into the other panel
        _draw_family(panels, family, at + 1, seeds)
        at += 1 + len(family.rows)
    if len(seeds) <= NAMED_SEEDS:
        handles, texts = panels[0].get_legend_handles_labels()
        canvas.legend(handles[: len(seeds)], texts[: len(seeds)], loc="outside lower center", ncols=3)


def _draw_family(panels: Sequence[Axes], family: Family, first: int, seeds: Sequence[int]) -> None:
    """first: the place of its first row. In the second panel the row's mean is taken off."""
    places: list[float] = list(range(first, first + len(family.rows)))
    values = [row.by_seed("AP") for row in family.rows]
    means = [statistics.fmean(row.values()) for row in values]
    for mean, place in zip(means, places, strict=True):
        panels[0].plot([mean, mean], [place - 0.32, place + 0.32], **style.reference())
    for axes, offsets in zip(panels, ([0.0] * len(means), means), strict=False):
        lines = [
            [row.get(seed, math.nan) - offset for row, offset in zip(values, offsets, strict=True)] for seed in seeds
        ]
        if len(seeds) > NAMED_SEEDS:  # as one line with gaps: thousands of lines would take minutes
            gap = [math.nan]
            found = [value for line in lines for value in line + gap]
            thin: dict[str, Any] = {"color": style.FAINT, "linewidth": style.HAIR}
            axes.plot(found, (places + gap) * len(seeds), **thin)
            _draw_marks(axes, lines, places)
            continue
        for number, (seed, line) in enumerate(zip(seeds, lines, strict=True)):
            look = style.series(number) | {"marker": style.marker(number), "linewidth": style.HAIR}
            axes.plot(line, places, label=f"seed {seed}", **look)


def _draw_marks(axes: Axes, lines: Sequence[Sequence[float]], places: Sequence[float]) -> None:
    """A short stroke per run, all of them one line with gaps: a file of thousands of markers would be of megabytes."""
    points = [(value, place) for line in lines for value, place in zip(line, places, strict=True)]
    across = [x for value, _ in points for x in (value, value, math.nan)]
    down = [y for _, place in points for y in (place - 0.1, place + 0.1, math.nan)]
    axes.plot(across, down, color=style.FAINT, linewidth=2 * style.HAIR)


def _heading(family: Family) -> str:
    """Its name and, where known, its deviation and the seed's share of it."""
    found = family.blocks
    if found is None:
        return family.name
    share = "" if found.share is None else f", {found.share:.0%} the seed's"
    return f"{family.name}: sd {found.total**0.5:.2f}{share}"
