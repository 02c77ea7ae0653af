"""Checks of a caller's values: each raises ValueError with the value and the valid choices. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence


def require_positive(name: str, value: float, *, or_inf: bool = False) -> None:
    """``value`` must be > 0, and finite unless ``or_inf``; NaN never passes."""
    if not (value > 0 and (or_inf or math.isfinite(value))):
        raise ValueError(
            f"{name} = {value!r} is not valid. Valid: a number > 0{', or inf' if or_inf else ' and finite'}."
        )


def require_between(name: str, value: float, low: float, high: float = math.inf) -> None:
    """``value`` must be finite and lie in [low, high]; NaN never passes."""
    if not (math.isfinite(value) and low <= value <= high):
        raise ValueError(f"{name} = {value!r} is not valid. Valid: a finite number from {low:g} to {high:g}.")


def require_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """``value`` must be one of ``choices``."""
    if value not in choices:
        raise ValueError(f"Unknown {name} {value!r}. Known: {', '.join(choices)}.")
