"""How a table is to look, as the options of ``harness table`` say it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from detector.errors import UsageError
from harness.registry.declarations import METRICS

Notes = Literal["all", "short", "none"]
Width = Literal["column", "page"]
Layout = Literal["paper", "both"]
COLUMNS: Final = ("n", "ours", "sd", "paper", "diff", "verdict")


@dataclass(frozen=True)
class Look:
    """How a table is to look.

    terminal: columns of the terminal that reads it; None for a file or a pipe, whose text never depends on one. notes:
    None for the format's own choice. The others are LaTeX's: width, of a conference's page of two columns; layout, ours
    in the place of the paper's numbers, or both; columns, of ``COLUMNS``, None for those of the layout; metrics.
    """

    terminal: int | None = None
    notes: Notes | None = None
    width: Width = "page"
    layout: Layout = "both"
    columns: tuple[str, ...] | None = None
    metrics: tuple[str, ...] = METRICS


def parse_names(text: str, known: Sequence[str], option: str) -> tuple[str, ...]:
    """``AP,AP50``: names of ``known``, each once, in the order of ``known``. Raises UsageError for any other."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UsageError(
                f"Unknown name {name!r} in {option}. Known: {', '.join(known)}. Run 'harness table --help'."
            )
    return tuple(name for name in known if name in names)
