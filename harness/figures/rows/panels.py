"""Small panels that share their rows: names on the left, one line of each panel per row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from harness.figures.figure import INCHES, Width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

LINE: Final = 0.16  # inches per row
_AROUND: Final = 0.55  # inches of title, ticks and their label
_BESIDE: Final[dict[Width, int]] = {"column": 2, "page": 6}  # panels side by side
MOST_LETTERS: Final[dict[Width, int]] = {"column": 22, "page": 34}  # of a row's name


def width_of(canvas: Canvas) -> Width:
    """For which width an empty figure was made."""
    return "page" if canvas.get_figwidth() > (INCHES["column"] + INCHES["page"]) / 2 else "column"


def heights(num_rows: int, num_panels: int, extra: float = 0.0) -> dict[Width, float]:
    """Inches, by width. extra: for a legend or the like."""
    return {
        width: math.ceil(num_panels / _BESIDE[width]) * (num_rows * LINE + _AROUND) + extra
        for width in ("column", "page")
    }


def row_panels(
    canvas: Canvas, names: Sequence[str], titles: Sequence[str], widths: Sequence[float] | None = None
) -> list[Axes]:
    """One axes per title, with a line per name from the top; "": room for a heading, without a name.

    widths: of panels that stand in one line, to each other; None: alike.
    """
    width = width_of(canvas)
    beside = min(_BESIDE[width], len(titles))
    ratios = list(widths[:beside]) if widths is not None else None
    lines = math.ceil(len(titles) / beside)
    found = canvas.subplots(lines, beside, sharey=True, squeeze=False, width_ratios=ratios).ravel().tolist()
    for axes in found[len(titles) :]:
        axes.remove()
    panels: list[Axes] = found[: len(titles)]
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=True, axis="y")
    named = [(at, cut(name, MOST_LETTERS[width])) for at, name in enumerate(names) if name]
    panels[0].set_yticks([at for at, _ in named], [name for _, name in named])
    return panels


def cut(text: str, most: int) -> str:
    """At most so many letters."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
