"""How every figure looks: colours, lines, markers, fonts. The one place for them; free of matplotlib until it draws.

Colours are Okabe and Ito's, which the colour-blind tell apart. In grey they come close to each other, so each series
has a line and a marker of its own too.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from detector.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axis import Axis

INK: Final = "#1a1a1a"  # text, axes, reference lines; on a page, the page's own text colour
FAINT: Final = "#767676"  # what stands back: grids, cited numbers, what was not decided
PAPER: Final = "#ffffff"  # behind a label that lies on lines
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8b5a2b")
Dashes = str | tuple[int, tuple[float, ...]]
LINES: Final[tuple[Dashes, ...]] = (
    *("-", "--", "-.", (0, (1.2, 0.9))),
    *((0, (5.0, 1.0, 1.0, 1.0, 1.0, 1.0)), (0, (8.0, 2.0)), (0, (3.0, 1.0))),
)
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")

POINTS: Final = 7.0  # the smallest text, in print
TITLE_POINTS: Final = 8.0
LINE: Final = 1.2  # points
HAIR: Final = 0.6
BAND: Final = 0.2  # opacity of the area between the ends of an interval
DPI: Final = 300  # of PNG


@dataclass(frozen=True)
class Mark:
    """How one outcome is drawn: colour and marker tell it, each alone. filled: whether the marker is."""

    colour: str
    marker: str
    filled: bool

    def point(self) -> dict[str, Any]:
        """Arguments of ``plot`` and ``errorbar`` for a point of this outcome."""
        face = self.colour if self.filled else PAPER
        return {"color": self.colour, "marker": self.marker, "markerfacecolor": face, "markeredgecolor": self.colour}


# Of claims and of cells.
OUTCOMES: Final[dict[str, Mark]] = {
    "supported": Mark(COLOURS[0], "o", filled=True),
    "contradicted": Mark(COLOURS[1], "X", filled=True),
    "undecided": Mark(INK, "o", filled=False),
    "not decidable here": Mark(FAINT, "D", filled=False),
    "reproduced": Mark(COLOURS[0], "o", filled=True),
    "consistent": Mark(COLOURS[2], "s", filled=True),
    "not reproduced": Mark(COLOURS[1], "X", filled=True),
    "inconclusive": Mark(INK, "o", filled=False),
    "pending": Mark(FAINT, "D", filled=False),
}

# DejaVu Sans comes with matplotlib, so that a figure has the same bytes on every machine.
_FONT: Final = "DejaVu Sans"
_RC: Final[dict[str, Any]] = {
    "font.family": ["sans-serif"],
    "font.sans-serif": [_FONT],
    "font.size": POINTS,
    "axes.titlesize": TITLE_POINTS,
    "axes.labelsize": POINTS,
    "xtick.labelsize": POINTS,
    "ytick.labelsize": POINTS,
    "legend.fontsize": POINTS,
    "legend.title_fontsize": POINTS,
    "figure.titlesize": TITLE_POINTS,
    "figure.facecolor": PAPER,
    "figure.edgecolor": "none",
    "savefig.facecolor": "auto",
    "axes.facecolor": "none",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.edgecolor": FAINT,
    "legend.facecolor": PAPER,
    "legend.frameon": False,
    "legend.handlelength": 2.6,  # long enough to tell dashes apart
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": HAIR,
    "axes.axisbelow": True,
    "xtick.major.width": HAIR,
    "ytick.major.width": HAIR,
    "xtick.minor.width": HAIR / 2,
    "ytick.minor.width": HAIR / 2,
    "grid.color": FAINT,
    "grid.alpha": 0.3,
    "grid.linewidth": HAIR,
    "lines.linewidth": LINE,
    "lines.markersize": 3.5,
    "errorbar.capsize": 1.5,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "text.usetex": False,
    "svg.fonttype": "none",  # text stays text
    "pdf.fonttype": 42,  # TrueType: conferences refuse Type 3
    "pdf.use14corefonts": False,
    "axes.unicode_minus": True,
    "figure.constrained_layout.use": True,
}


def series(index: int) -> dict[str, Any]:
    """Arguments of ``plot`` for the line of a series: colour and dashes. They begin again after seven."""
    number = index % len(COLOURS)
    return {"color": COLOURS[number], "linestyle": LINES[number], "linewidth": LINE}


def marker(index: int) -> str:
    """The marker of the same series."""
    return MARKERS[index % len(MARKERS)]


def reference() -> dict[str, Any]:
    """Arguments of ``axhline`` and ``plot`` for what others are compared with."""
    return {"color": INK, "linestyle": "-", "linewidth": HAIR}


def powers_of_ten(axis: Axis) -> None:
    """Label a logarithmic axis with 10⁻³, 1, 10, 100, ...: plain text, as formulas are not parsed."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(base=10.0, numticks=6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: power_of_ten(float(value))))
    axis.set_minor_formatter(NullFormatter())


def power_of_ten(value: float) -> str:
    """A power of ten as text: 0.01 to 1000 as they are, others as 10⁻⁵; "" for another number."""
    if value <= 0 or not math.isfinite(value):
        return ""
    exponent = round(math.log10(value))
    if not math.isclose(value, 10.0**exponent, rel_tol=1e-6):
        return ""
    if -2 <= exponent <= 3:
        return f"{10.0**exponent:g}"
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


@contextmanager
def applied() -> Iterator[None]:
    """This style and nothing of the user's own ``matplotlibrc``, while something is drawn and written.

    Raises UsageError where matplotlib cannot be imported because of the user's settings, or has lost its font.
    """
    try:
        from matplotlib import style
    except ValueError as error:  # MPLBACKEND names nothing, or a matplotlibrc cannot be read
        raise UsageError(f"matplotlib refuses this machine's settings (MPLBACKEND, matplotlibrc): {error}") from error
    _check_font()
    with warnings.catch_warnings(), style.context(_RC, after_reset=True):
        # A name in a script that the font lacks: the browser has it for SVG; PNG and PDF show a box.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        yield


def _check_font() -> None:
    from matplotlib import font_manager

    try:
        font_manager.get_font(font_manager.findfont(_FONT, fallback_to_default=False))
    except (ValueError, OSError, RuntimeError) as error:  # not there, or not a font that FreeType can read
        raise UsageError(
            f"No figure can be drawn: matplotlib's own fonts are missing or cannot be read ({error}). "
            "Install matplotlib again: pip install --force-reinstall matplotlib"
        ) from error
