"""Fig. 4: how the scores of negative and positive entries are spread after training with each loss, from records.

Every record of format 2 has the scores of all entries of its test split in bins, so that nothing is evaluated again.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

from detector.runs.record import Record
from harness.figures import style
from harness.figures.figure import Figure, Numbers, Width
from harness.figures.rows.panels import width_of
from harness.planning.unequal import choose

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from harness.planning.selection import Selection

# The rows whose losses the paper's figure compares, in its order.
ROWS: Final = {"ablations/cross-entropy": "cross entropy", "table2/focal": "focal loss", "table3/dr": "DR loss"}
MOST_LINEAR: Final = 12.0  # a density above it makes the axis logarithmic: the others would lie on the ground
MARKED: Final = 12  # every so many bins a marker
LEAST: Final = 1e-4  # no logarithmic axis shows a lower density
_LEGEND: Final[dict[Width, float]] = {"column": 0.44, "page": 0.34}  # share of the axes' height, above all curves
Set = Literal["negatives", "positives"]
SETS: Final[tuple[Set, ...]] = ("negatives", "positives")


@dataclass(frozen=True)
class Spread:
    """The scores of one set of one row. densities: per seed, one per bin over 0..1. means: per seed, of the scores."""

    ref: str
    set: Set
    densities: tuple[tuple[float, ...], ...]
    means: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The expectation, as the mean over seeds."""
        return statistics.fmean(self.means)

    @property
    def edges(self) -> list[float]:
        """Of the bins, one more than there are."""
        bins = len(self.densities[0])
        return [i / bins for i in range(bins + 1)]

    def over_seeds(self) -> tuple[list[float], list[float], list[float]]:
        """Mean, lowest and highest density of each bin."""
        by_bin = list(zip(*self.densities, strict=True))
        return [statistics.fmean(values) for values in by_bin], list(map(min, by_bin)), list(map(max, by_bin))


def figure(selection: Selection) -> Figure:
    """The two panels of Fig. 4 at the selection's profile: the same rows whatever the target is."""
    profile = selection.profile.name
    records = {ref: choose(found).kept for ref, found in selection.row_records().items() if ref in ROWS}
    spreads = spreads_of(records)
    lacking = _lacking(spreads, records, profile)
    return Figure(
        name="fig4",
        title="Scores after training with each loss (Fig. 4)",
        caption=(
            f"Densities of the scores of (a) negative and (b) positive entries, one entry per anchor and class, over "
            f"the whole test split at profile {profile}. {_seeds(spreads)} Vertical lines: the expectations. On a "
            "logarithmic axis a curve falls to the ground where no entry has such a score."
            f"{' ' * bool(lacking)}{lacking}"
        ),
        numbers=_numbers(spreads),
        draw=lambda canvas: _draw(canvas, spreads),
        height={"column": 4.6, "page": 2.8},
        claims=tuple(claim.id for claim in selection.registry.claims if "Fig. 4" in claim.where),
        missing="" if spreads else f"there is nothing to draw. {lacking}",
    )


def spreads_of(records: Mapping[str, Sequence[Record]]) -> list[Spread]:
    """Of each row and set that has entries, in the order of ``ROWS``; those of the first record's number of bins."""
    return [spread for name in SETS for ref in ROWS if (spread := _spread(ref, name, records.get(ref, ()))) is not None]


def _spread(ref: str, name: Set, records: Sequence[Record]) -> Spread | None:
    densities = list[tuple[float, ...]]()
    means = list[float]()
    for record in sorted(records, key=lambda record: record.job.train.seed):
        if record.scores is None:
            continue
        positive = name == "positives"
        counts = record.scores.positives if positive else record.scores.negatives
        total, number = (record.scores.positive_sums if positive else record.scores.negative_sums)[0], sum(counts)
        if number and (not densities or len(counts) == len(densities[0])):
            densities.append(tuple(count * len(counts) / number for count in counts))
            means.append(total / number)
    return Spread(ref, name, tuple(densities), tuple(means)) if densities else None


def _lacking(spreads: Sequence[Spread], records: Mapping[str, Sequence[Record]], profile: str) -> str:
    """Which rows are not drawn, why, and the command that would give them; empty where all are."""
    lack = [ref for ref in ROWS if not any(spread.ref == ref for spread in spreads)]
    old = [ref for ref in lack if records.get(ref)]
    reasons = {"no run": [ref for ref in lack if ref not in old], "records of format 1 have no spread of scores": old}
    said = [f"{', '.join(ROWS[ref] for ref in refs)} ({why})" for why, refs in reasons.items() if refs]
    fresh = " --fresh" if old else ""
    return (
        f"Not shown: {'; '.join(said)}. Next: harness run {' '.join(lack)} --profile {profile}{fresh}" if lack else ""
    )


def _seeds(spreads: Sequence[Spread]) -> str:
    counts = {ROWS[spread.ref]: len(spread.means) for spread in spreads}
    said = ", ".join(f"{name} {count}" for name, count in counts.items())
    bands = " Bands: from the lowest to the highest seed." if any(count > 1 for count in counts.values()) else ""
    return f"Means over seeds, of which there are: {said}.{bands}" if counts else ""


def _numbers(spreads: Sequence[Spread]) -> Numbers:
    columns = ("row", "entries", "seeds", "expectation", "from", "to", "density", "lowest", "highest")
    rows = [
        (spread.ref, spread.set, len(spread.means), spread.mean, spread.edges[i], spread.edges[i + 1], *values)
        for spread in spreads
        for i, values in enumerate(zip(*spread.over_seeds(), strict=True))
    ]
    return Numbers(columns, rows)


def _draw(canvas: Canvas, spreads: Sequence[Spread]) -> None:
    width = width_of(canvas)
    wide = width == "page"
    axes = canvas.subplots(1, 2) if wide else canvas.subplots(2, 1)
    for each, name, title in zip(axes, SETS, ("(a) Negative entries", "(b) Positive entries"), strict=True):
        each.set_title(title)
        _panel(each, [spread for spread in spreads if spread.set == name], _LEGEND[width])
    for each in axes if wide else axes[-1:]:
        each.set_xlabel("score")


def _panel(axes: Axes, spreads: Sequence[Spread], legend: float) -> None:
    """legend: the share of the height that it takes, above the curves."""
    lowest, highest = _range(spreads)
    if log := highest > MOST_LINEAR:
        axes.set_yscale("log", nonpositive="clip")
        style.powers_of_ten(axes.yaxis)
    for spread in spreads:
        index = list(ROWS).index(spread.ref)
        look, centres = style.series(index), [(low + high) / 2 for low, high in pairwise(spread.edges)]
        mean, low, high = spread.over_seeds()
        # Dashes would be lost in the steps of a density: markers tell the losses apart, dashes their expectations.
        every = (MARKED * index // len(ROWS), MARKED)
        solid = {**look, "linestyle": "-", "marker": style.marker(index), "markevery": every}
        axes.plot(centres, mean, label=f"{ROWS[spread.ref]}, {spread.mean:.3f}", **solid)
        if len(spread.means) > 1:
            axes.fill_between(centres, low, high, color=look["color"], alpha=style.BAND, linewidth=0)
        axes.vlines(spread.mean, 0.0, highest, colors=look["color"], linestyles=look["linestyle"], linewidth=style.HAIR)
    share = legend / (1.0 - legend)
    axes.set_ylim((lowest, highest * (highest / lowest) ** share) if log else (0.0, highest * (1.0 + share)))
    axes.set_xlim(0.0, 1.0)
    axes.set_ylabel("density")
    if spreads:
        axes.legend(loc="upper right", title="loss, expectation")


def _range(spreads: Sequence[Spread]) -> tuple[float, float]:
    """The ends of a logarithmic axis: below every density of a mean that is not 0, but not too far; and the highest."""
    found = [density for spread in spreads for density in spread.over_seeds()[0] if density > 0]
    highest = max((max(spread.over_seeds()[2]) for spread in spreads), default=1.0)
    return max(LEAST, min(found, default=1.0) / 2), highest
