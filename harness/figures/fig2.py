"""Fig. 2: how the ranking loss moves a distribution of scores, by its own weights (Proposition 1).

Gaussian points stand for scores, as in the paper, which gives their number and not their mean, deviations or lambdas.
Ours are such that all points lie between 0 and 1; 0.08 is about the lambda of the paper's negatives, 0.1 / log 3.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from harness.figures import style
from harness.figures.figure import INCHES, Figure, Numbers, Statement

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from harness.planning.selection import Selection

    Points: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

POINTS: Final = 10_000_000  # the paper's number
CHUNK: Final = 1_000_000
SEED: Final = 0
MEAN: Final = 0.5
SMALL, LARGE = 0.015, 0.06  # standard deviations
LAMBDAS: Final = (0.16, 0.08, 0.04, 0.02)
# "Changes the distribution effectively": moves its mean by this many of its standard deviations. Declared by us.
EFFECTIVE: Final = 0.5
BINS: Final = 90
BELOW, ABOVE = 3.6, 5.4  # standard deviations that are drawn to each side of the mean
DIGITS: Final = 6  # significant ones, kept of each number, so that every machine writes the same
WHERE: Final = "§3.2, below Remark 1; Fig. 2"
CLAIMS: Final = ("positives-more-sensitive", "positives-scatter-more")  # of trainings; §4.3 refers to the figure


@dataclass(frozen=True)
class Drifted:
    """Gaussian points and what their distribution becomes.

    deviation: their standard deviation. largest: the largest point, where the worst case is. edges: of the bins, one
    more than there are. original: density per bin. density, mean: of the derived distributions, by lambda.
    """

    deviation: float
    largest: float
    edges: tuple[float, ...]
    original: tuple[float, ...]
    density: dict[float, tuple[float, ...]]
    mean: dict[float, float]

    def moved(self, lambda_: float) -> float:
        """By how many of their standard deviations the mean goes up."""
        return (self.mean[lambda_] - MEAN) / self.deviation


def figure(selection: Selection) -> Figure:
    """The two panels of Fig. 2. They are the same for every selection."""
    normal = normal_points(POINTS)
    panels = [drift(normal, deviation) for deviation in (SMALL, LARGE)]
    statements = check(*panels)
    return Figure(
        name="fig2",
        title="How the derived distributions drift (Fig. 2)",
        caption=(
            f"Densities of 10⁷ Gaussian points with mean {MEAN:g}, as scores p of negative anchors, and of the "
            "distributions that the ranking loss derives from them: each point is weighted by exp(p / λ) (Proposition "
            f"1), by the loss's own code. Standard deviation (a) {SMALL:g}, (b) {LARGE:g}; the axes differ. For "
            "positives, weighted by exp(-p / λ) (Proposition 2), it is the mirror image. Where a curve is rough, few "
            "points have most of the weight. "
            f"{' '.join(statement.sentence for statement in statements)} The paper does not give the mean, the "
            "deviations and λ; these are ours."
        ),
        numbers=_numbers(panels),
        draw=lambda canvas: _draw(canvas, panels),
        height={"column": 3.9, "page": 2.5},
        claims=tuple(claim.id for claim in selection.registry.claims if claim.id in CLAIMS),
        statements=statements,
    )


def normal_points(count: int) -> Points:
    """Standard normal points, the same on every machine."""
    import numpy as np

    return np.random.Generator(np.random.PCG64(SEED)).standard_normal(count)


def drift(normal: Points, deviation: float) -> Drifted:
    """The derived distributions of ``MEAN + deviation * normal``, in chunks, so that memory does not grow with them."""
    import numpy as np

    largest = MEAN + deviation * float(normal.max())
    edges = np.linspace(MEAN - BELOW * deviation, MEAN + ABOVE * deviation, BINS + 1)
    width = float(edges[1] - edges[0])
    sums = {lambda_: np.zeros(BINS + 2) for lambda_ in LAMBDAS}
    firsts = dict.fromkeys(LAMBDAS, 0.0)
    original = np.zeros(BINS + 2)
    for part in np.array_split(normal, max(1, len(normal) // CHUNK)):
        points = MEAN + deviation * part
        # The first and the last bin: outside of what is drawn.
        places = np.clip((points - edges[0]) / width + 1.0, 0.0, BINS + 1.0).astype(np.int64)
        original += np.bincount(places, minlength=BINS + 2)
        for lambda_ in LAMBDAS:
            weights = _weights(points, lambda_, largest)
            sums[lambda_] += np.bincount(places, weights, minlength=BINS + 2)
            firsts[lambda_] += float(weights @ points)
    return Drifted(
        deviation=deviation,
        largest=_rounded(largest),
        edges=tuple(map(_rounded, edges)),
        original=_density(original, width),
        density={lambda_: _density(found, width) for lambda_, found in sums.items()},
        mean={lambda_: _rounded(firsts[lambda_] / found.sum()) for lambda_, found in sums.items()},
    )


def check(small: Drifted, large: Drifted) -> tuple[Statement, ...]:
    """What the paper says of the figure, checked on the distributions that are drawn."""
    moved = [[panel.moved(lambda_) for lambda_ in LAMBDAS] for panel in (small, large)]
    worst = [(panel.largest - MEAN) / panel.deviation for panel in (small, large)]
    enough = [
        max((lambda_ for lambda_ in LAMBDAS if panel.moved(lambda_) >= EFFECTIVE), default=0.0)
        for panel in (small, large)
    ]
    return (
        Statement(
            "The smaller λ is, the closer the derived distribution comes to the worst case, which is the largest point",
            WHERE,
            f"from λ = {LAMBDAS[0]:g} to {LAMBDAS[-1]:g} the mean moves up by {moved[0][0]:.2f} to {moved[0][-1]:.2f} "
            f"standard deviations in (a) and by {moved[1][0]:.2f} to {moved[1][-1]:.2f} in (b), of {worst[1]:.2f}",
            all(values == sorted(values) and values[-1] <= most for values, most in zip(moved, worst, strict=True)),
        ),
        Statement(
            "With the small variance λ must be small to change the distribution effectively; with the large one a "
            "large λ is enough",
            WHERE,
            f"the largest λ that moves the mean by {EFFECTIVE:g} standard deviations (our measure) is {enough[0]:g} "
            f"in (a) and {enough[1]:g} in (b)",
            0 < enough[0] < enough[1],
        ),
    )


def _weights(points: Points, lambda_: float, largest: float) -> Points:
    """The loss's own weights of negatives, up to their normaliser."""
    import torch

    from drloss.functional.distributional import hardest_weights

    below = torch.from_numpy(points - largest).unsqueeze(0)
    weights: Points = hardest_weights(below, torch.ones_like(below, dtype=torch.bool), lambda_)[0].numpy()
    return weights


def _density(sums: Points, width: float) -> tuple[float, ...]:
    """Of the bins that are drawn; what lies outside counts into the whole."""
    return tuple(_rounded(value) for value in sums[1:-1] / (sums.sum() * width))


def _rounded(value: Any) -> float:
    return float(f"{float(value):.{DIGITS}g}")


def _numbers(panels: Sequence[Drifted]) -> Numbers:
    columns = ("standard deviation", "from", "to", "original", *(f"lambda={lambda_:g}" for lambda_ in LAMBDAS))
    rows = [
        (panel.deviation, low, high, *densities)
        for panel in panels
        for (low, high), *densities in zip(pairwise(panel.edges), panel.original, *panel.density.values(), strict=True)
    ]
    return Numbers(columns, rows)


def _draw(canvas: Canvas, panels: Sequence[Drifted]) -> None:
    wide = canvas.get_figwidth() > INCHES["column"]
    axes = canvas.subplots(1, 2) if wide else canvas.subplots(2, 1)
    for each, panel, title in zip(axes, panels, ("(a) Small variance", "(b) Large variance"), strict=True):
        _panel(each, panel)
        each.set_title(f"{title}, standard deviation {panel.deviation:g}")
    for each in axes if wide else axes[-1:]:
        each.set_xlabel("score p")
    handles, labels = axes[0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside lower center", ncols=len(labels) if wide else 3)


def _panel(axes: Axes, panel: Drifted) -> None:
    centres = [(low + high) / 2 for low, high in pairwise(panel.edges)]
    axes.plot(centres, panel.original, label="original", color=style.INK, linewidth=style.LINE)
    for i, (lambda_, density) in enumerate(panel.density.items()):
        # The first dashes are solid, as the original's line is.
        axes.plot(centres, density, label=f"λ = {lambda_:g}", **style.series(i + 1))
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlim(panel.edges[0], panel.edges[-1])
    axes.set_ylim(bottom=0)
    axes.set_ylabel("density")
