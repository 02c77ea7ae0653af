"""What a figure is before it is drawn or written: its words, its numbers, and how matplotlib draws them.

Free of matplotlib: it is imported by ``draw`` and by whoever writes the figure, only when they run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

Width = Literal["column", "page"]
# Inches: a column and the text width of a two-column conference paper (CVPR's style).
INCHES: Final[dict[Width, float]] = {"column": 3.25, "page": 6.875}
Cell = str | int | float | None


@dataclass(frozen=True)
class Numbers:
    """The numbers of a figure, as a table: one tuple per row, in the order of ``columns``. None: unknown."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]


@dataclass(frozen=True)
class Figure:
    """One figure.

    name: as in ``harness figure NAME``. caption: what is shown, of which runs, and how to read it; it stands alone.
    numbers: all that is drawn. draw: fills an empty matplotlib figure that is already as wide as ``Width`` says.
    height: inches, by width. claims: ids of the claims whose statement the figure shows, for the verdicts beside it.
    missing: why there is nothing to draw and the next command; "" where there is something.
    """

    name: str
    title: str
    caption: str
    numbers: Numbers
    draw: Callable[[Canvas], None]
    height: dict[Width, float]
    claims: tuple[str, ...] = ()
    missing: str = ""
