"""A figure with hostile texts, numbers that are not round, and every kind of line; and one with nothing to draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.figures import style
from harness.figures.figure import Figure, Numbers, Statement

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

HOSTILE = '<script>alert(1)</script> & $\\frac{1}$ id="x" \x1b[31m 日本'
COLUMNS = ("name", "value", "unknown")
ROWS = [("=1+2", 0.1 + 0.2, None), ('line\nbreak, "quoted"', 1e-30, float("nan")), ("plain", 7, None)]


def draw(canvas: Canvas) -> None:
    """Seven lines with markers, a band, a logarithmic axis, and texts from elsewhere."""
    axes = canvas.subplots()
    for i in range(len(style.COLOURS)):
        axes.plot([1, 2, 3], [10.0**-i, 1, 10], marker=style.marker(i), label=f"{i}", **style.series(i))
    axes.fill_between([1, 2, 3], [0.1, 0.1, 0.1], [1, 1, 1], color=style.COLOURS[0], alpha=style.BAND)
    axes.axhline(2.0, **style.reference())
    axes.set_yscale("log")
    style.powers_of_ten(axes.yaxis)
    axes.set_xlabel(HOSTILE)
    axes.grid(True)
    axes.legend()


SAMPLE = Figure(
    name="sample",
    title=f"Title {HOSTILE}",
    caption="A caption.",
    numbers=Numbers(COLUMNS, ROWS),
    draw=draw,
    height={"column": 2.2, "page": 3.0},
    statements=(Statement("Lines are drawn", "§0", "7 of them", holds=True),),
)
EMPTY = Figure("empty", "Nothing", "", Numbers((), ()), draw, SAMPLE.height, missing="no record; next: harness run all")
