"""Numbers as people's files have them: as text, as 128.0, as booleans. Free of torch."""

from __future__ import annotations

import math
from typing import Any

MOST_DIGITS = 40  # of a number written as text


def number(value: Any) -> float | None:
    """A finite number, also where it is written as text; None for everything else."""
    if isinstance(value, str) and len(value) <= MOST_DIGITS:
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def whole(value: Any) -> int | None:
    """A whole number of 53 bits at most, also as 128.0 or as text; None for everything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) < 2**53 else None
    found = number(value)
    return int(found) if found is not None and found.is_integer() and abs(found) < 2**53 else None


def numbers(values: Any, count: int | None = None) -> list[float] | None:
    """A list of finite numbers, of this length if one is given; None for everything else."""
    if not isinstance(values, list | tuple) or (count is not None and len(values) != count):
        return None
    found = [number(value) for value in values]
    return None if any(value is None for value in found) else [value for value in found if value is not None]


def flag(value: Any) -> bool | None:
    """Yes or no, also as 0, 1, "0", "false" or null; None for everything else."""
    if value is None:
        return False
    if isinstance(value, str):
        value = {"true": 1, "false": 0, "": 0, "yes": 1, "no": 0}.get(value.lower(), number(value))
    return bool(value) if value in (0, 1) else None
