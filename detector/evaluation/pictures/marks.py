"""What is drawn on an image: boxes and points with a colour, a kind of line and words; the colours of all pictures.

Okabe and Ito's colours, told apart by the colour-blind too. What colour says is also said by the line and by a letter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from detector.storage.shown import one_line

Line = Literal["solid", "dashed", "dotted"]
Shape = Literal["dot", "cross"]
Box = tuple[float, float, float, float]  # x1, y1, x2, y2: edges, in pixels of the original image

ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    *("#E69F00", "#56B4E9", "#009E73", "#F0E442"),
    *("#0072B2", "#D55E00", "#CC79A7"),
)
COLOURS: Final = (ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE)
LINES: Final[tuple[Line, ...]] = ("solid", "dashed", "dotted")
GREY: Final = "#9A9A9A"
DARK_GREY: Final = "#4A4A4A"  # of thin signs, which a light edge surrounds
INK, PAPER = "#1A1A1A", "#FFFFFF"
MOST_LETTERS: Final = 24  # of a name in a picture


@dataclass(frozen=True)
class Mark:
    """A box. text: its label, empty for none. hatched: a region rather than an object."""

    box: Box
    text: str
    colour: str
    line: Line = "solid"
    hatched: bool = False


@dataclass(frozen=True, eq=False)
class Points:
    """Small signs of one colour. at: [P, 2] x and y in pixels of the original image."""

    at: NDArray[np.float64]
    colour: str
    shape: Shape = "dot"


@dataclass(frozen=True)
class Key:
    """An entry of a picture's legend: a sample of the line or point, and what it means."""

    text: str
    colour: str
    line: Line = "solid"
    hatched: bool = False
    shape: Shape | None = None  # of points; None: a box


def short_name(text: str, most: int = MOST_LETTERS) -> str:
    """Text from data as a label has it: on one line, nothing in it acts on anything, at most ``most`` letters."""
    plain = " ".join(one_line(text).split())
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"


def ink_on(colour: str) -> str:
    """Black or white, whichever is read better on ``colour`` (#RRGGBB)."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 120 else PAPER
