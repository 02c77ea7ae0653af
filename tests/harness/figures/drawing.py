"""A figure drawn as ``output`` draws it, and what stands on its axes."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from harness.figures import style
from harness.figures.figure import Figure, Width
from harness.figures.output import drawn


def draw(figure: Figure, width: Width = "page") -> Canvas:
    """Drawn and laid out; nothing is written."""
    assert not figure.missing, figure.missing
    with style.applied():
        canvas = drawn(figure, width)
        canvas.draw_without_rendering()
    return canvas


def titled(canvas: Canvas, title: str) -> Axes:
    """The axes of that title."""
    (found,) = [axes for axes in canvas.axes if axes.get_title() == title]
    return found


def names(axes: Axes) -> list[str]:
    """The rows' names, from the top."""
    return [label.get_text() for label in axes.get_yticklabels()]


def points(axes: Axes) -> dict[int, float]:
    """Place of a row -> value of its one point: a marker without a line."""
    found = {}
    for line in axes.lines:
        if line.get_linestyle() == "None" and len(line.get_xdata()) == 1:
            found[round(float(line.get_ydata()[0]))] = float(line.get_xdata()[0])
    return found


def texts(canvas: Canvas) -> list[str]:
    """All texts on the canvas and inside its axes."""
    return [text.get_text() for text in [*canvas.texts, *(text for axes in canvas.axes for text in axes.texts)]]
