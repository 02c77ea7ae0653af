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
class Statement:
    """What the paper says of a figure that needs no training: it is checked on the numbers that are drawn.

    text: in our words. where: its place in the paper. measured: the numbers that it was checked on. holds: the outcome.
    """

    text: str
    where: str
    measured: str
    holds: bool

    @property
    def sentence(self) -> str:
        """The statement, what was measured and, where it does not hold, that; for a caption."""
        return f"{self.text}: {self.measured}.{'' if self.holds else ' This does not hold here.'}"


@dataclass(frozen=True)
class Figure:
    """One figure.

    name: as in ``harness figure NAME``. caption: what is shown, of which runs, and how to read it; it stands alone.
    numbers: all that is drawn. draw: fills an empty matplotlib figure that is already as wide as ``Width`` says.
    height: inches, by width. claims: ids of the claims whose statement the figure shows, for the verdicts beside it.
    statements: what the paper says of it, where no training is needed to check it; the caption has them in words too.
    missing: why there is nothing to draw and the next command; "" where there is something.
    """

    name: str
    title: str
    caption: str
    numbers: Numbers
    draw: Callable[[Canvas], None]
    height: dict[Width, float]
    claims: tuple[str, ...] = ()
    statements: tuple[Statement, ...] = ()
    missing: str = ""
