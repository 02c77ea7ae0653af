"""Fig. 3: the hinge loss and its smooth variants, as ``drloss`` computes them. No training is needed."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from harness.figures import style
from harness.figures.figure import INCHES, Figure, Numbers, Statement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

    from harness.planning.selection import Selection

# The paper does not give the figure's values. 0.2, 0.5; 4, 6, 10: of its Table 2. The others are ours, to be seen well.
RHOS: Final = (0.2, 0.5, 1.0)
LS: Final = (2.0, 4.0, 6.0, 10.0)
SIDE: Final = 1.0  # z is drawn from minus this to this
STEPS: Final = 200
DIGITS: Final = 9  # kept of each number, so that every machine writes the same
_ROUNDED: Final = 2 * 10.0**-DIGITS
WHERE: Final = "§3.2, below Eq. 8; Fig. 3"
Curves = dict[str, list[float]]


def figure(selection: Selection) -> Figure:
    """The two panels of Fig. 3. They are the same for every selection."""
    z, curves = surrogate_curves()
    statements = check(curves)
    return Figure(
        name="fig3",
        title="The hinge loss and its smooth variants (Fig. 3)",
        caption=(
            "The loss of a pair by z, the score of the negative minus that of the positive plus the margin. (a) The "
            "quadratic loss (Eq. 7), (b) the logistic loss (Eq. 8), each with the hinge loss. "
            f"{' '.join(statement.sentence for statement in statements)} The paper does not give the values of its "
            "figure: ρ = 0.2 and 0.5 and L = 4, 6 and 10 are of its Table 2, the others ours."
        ),
        numbers=Numbers(("z", *curves), list(zip(z, *curves.values(), strict=True))),
        draw=lambda canvas: _draw(canvas, z, curves),
        height={"column": 3.6, "page": 2.4},
        statements=statements,
    )


def surrogate_curves() -> tuple[list[float], Curves]:
    """z, and the values of each surrogate there, by its name with its parameter."""
    import torch

    from drloss import functional as losses

    z = torch.linspace(-SIDE, SIDE, STEPS + 1, dtype=torch.float64)
    z[STEPS // 2] = 0.0
    found = {"hinge": losses.hinge(z)}
    found |= {f"quadratic rho={rho:g}": losses.quadratic(z, rho=rho) for rho in RHOS}
    found |= {f"logistic L={L:g}": losses.logistic(z, L=L) for L in LS}
    return _rounded(z.tolist()), {name: _rounded(values.tolist()) for name, values in found.items()}


def check(curves: Curves) -> tuple[Statement, ...]:
    """What the paper says of the curves, checked on them."""
    of_L, of_rho = _distances(curves, "logistic"), _distances(curves, "quadratic")
    bounds_L, bounds_rho = [math.log(2) / L for L in LS], [rho / 4 for rho in RHOS]
    smooth = [values for name, values in curves.items() if name != "hinge"]
    return (
        Statement(
            "The larger L is, the closer the logistic loss is to the hinge loss, at most log(2) / L above it",
            WHERE,
            ", ".join(f"{distance:.3f} for L = {L:g}" for L, distance in zip(LS, of_L, strict=True)),
            of_L == sorted(of_L, reverse=True) and _close(of_L, bounds_L),
        ),
        Statement(
            "ρ works in the opposite direction, with at most ρ / 4",
            WHERE,
            ", ".join(f"{distance:.3f} for ρ = {rho:g}" for rho, distance in zip(RHOS, of_rho, strict=True)),
            of_rho == sorted(of_rho) and _close(of_rho, bounds_rho),
        ),
        Statement(
            "All share a similar shape",
            WHERE,
            "none ever falls, bends down or lies below the hinge loss",
            all(_like(values, curves["hinge"]) for values in smooth),
        ),
    )


def _rounded(values: list[float]) -> list[float]:
    return [round(value, DIGITS) for value in values]


def _distances(curves: Curves, name: str) -> list[float]:
    """The largest distance of each curve of one surrogate from the hinge."""
    return [
        max(abs(value - hinge) for value, hinge in zip(values, curves["hinge"], strict=True))
        for key, values in curves.items()
        if key.startswith(name)
    ]


def _close(found: list[float], wanted: list[float]) -> bool:
    return all(math.isclose(a, b, abs_tol=_ROUNDED) for a, b in zip(found, wanted, strict=True))


def _like(values: list[float], hinge: list[float]) -> bool:
    """Whether a curve never falls, is convex, and is nowhere below the hinge."""
    steps = [b - a for a, b in pairwise(values)]
    rises = all(step >= -_ROUNDED for step in steps)
    convex = all(b - a >= -2 * _ROUNDED for a, b in pairwise(steps))
    return rises and convex and all(a >= b - _ROUNDED for a, b in zip(values, hinge, strict=True))


def _draw(canvas: Canvas, z: list[float], curves: Curves) -> None:
    wide = canvas.get_figwidth() > INCHES["column"]
    axes = canvas.subplots(1, 2, sharey=True) if wide else canvas.subplots(2, 1, sharex=True)
    _panel(axes[0], "(a) Quadratic loss", z, curves, {f"quadratic rho={rho:g}": f"ρ = {rho:g}" for rho in RHOS})
    _panel(axes[1], "(b) Logistic loss", z, curves, {f"logistic L={L:g}": f"L = {L:g}" for L in LS})
    axes[1].set_xlabel("z")
    if wide:
        axes[0].set_xlabel("z")
    else:
        axes[1].set_ylabel("loss")
    axes[0].set_ylabel("loss")


def _panel(axes: Axes, title: str, z: list[float], curves: Curves, shown: dict[str, str]) -> None:
    axes.set_title(title)
    axes.plot(z, curves["hinge"], label="hinge", color=style.INK, linewidth=style.LINE)
    for i, (name, label) in enumerate(shown.items()):
        # The first dashes are solid, as the hinge's line is.
        axes.plot(z, curves[name], label=label, **style.series(i + 1))
    axes.set_xlim(-SIDE, SIDE)
    axes.set_xticks([-1.0, -0.5, 0.0, 0.5, 1.0])
    axes.set_ylim(-0.03, 1.1)
    axes.legend(loc="upper left")
