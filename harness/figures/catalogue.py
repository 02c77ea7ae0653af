"""The figures by name. Each is made by the module of its name in this folder, imported only when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from detector.errors import UsageError
from harness.figures.figure import Figure

if TYPE_CHECKING:
    from harness.planning.selection import Selection

# In the order in which they are shown. fig2, fig3, fig4: the paper's.
FIGURES: Final[tuple[str, ...]] = ("fig2", "fig3", "fig4", "curves", "claims", "cells", "seeds", "errors", "cost")


def known(name: str) -> str:
    """``name``, if there is such a figure. Raises UsageError with those that there are."""
    if name not in FIGURES:
        from difflib import get_close_matches

        close = get_close_matches(name, FIGURES, n=1)
        meant = f" Did you mean {close[0]}?" if close else ""
        raise UsageError(f"Unknown figure {name!r}.{meant} Known: {', '.join(FIGURES)}.")
    return name


def build(name: str, selection: Selection) -> Figure:
    """The figure called ``name`` of what is selected. Raises UsageError for an unknown name."""
    figure: Figure = import_module(f"harness.figures.{known(name)}").figure(selection)
    return figure
