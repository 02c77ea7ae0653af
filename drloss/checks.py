"""Checks of a caller's values. Imports no torch.

Each raises TypeError for what is no number (or function, or name) at all, ValueError for one that is out of range: with
the argument's name, what was given, and what is valid.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence


def require_positive(name: str, value: float, *, or_inf: bool = False) -> None:
    """``value`` must be > 0, and finite unless ``or_inf``; NaN never passes."""
    valid = f"a number > 0{', or inf' if or_inf else ' and finite'}"
    number = _as_float(name, value, valid)
    if not (number > 0 and (or_inf or math.isfinite(number))):
        raise ValueError(f"{name} = {value!r} is not valid. Valid: {valid}.")


def require_between(name: str, value: float, low: float, high: float = math.inf) -> None:
    """``value`` must be finite and lie in [low, high]; NaN never passes."""
    valid = f"a finite number from {low:g} to {high:g}"
    number = _as_float(name, value, valid)
    if not (math.isfinite(number) and low <= number <= high):
        raise ValueError(f"{name} = {value!r} is not valid. Valid: {valid}.")


def require_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """``value`` must be one of ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"Unknown {name} {value!r}. Known: {', '.join(choices)}.")


def require_number(name: str, value: object) -> None:
    """``value`` must be a number, finite or not."""
    _as_float(name, value, "a number")


def require_count(name: str, value: object) -> None:
    """``value`` must be a whole number of 1 or more."""
    try:
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError as error:
        raise TypeError(_not_of_the_kind(name, value, "a whole number, 1 or more")) from error
    if isinstance(value, bool):
        raise TypeError(_not_of_the_kind(name, value, "a whole number, 1 or more"))
    if count < 1:
        raise ValueError(f"{name} = {value!r} is not valid. Valid: a whole number, 1 or more.")


def require_function(name: str, value: object) -> None:
    """``value`` must be callable."""
    if not callable(value):
        raise TypeError(_not_of_the_kind(name, value, "a function, such as drloss.functional.logistic"))


def require_flag(name: str, value: object) -> None:
    """``value`` must be True or False, of Python or numpy."""
    if type(value).__name__ not in ("bool", "bool_"):
        raise TypeError(_not_of_the_kind(name, value, "True or False"))


def _as_float(name: str, value: object, valid: str) -> float:
    """A number of Python, numpy or torch as a float."""
    if isinstance(value, float):
        return value
    try:
        if isinstance(value, str | bytes | bool) or getattr(value, "ndim", None):
            raise TypeError  # of one element, float() would take them
        return float(value)  # type: ignore[arg-type]
    except OverflowError as error:
        raise ValueError(f"{name} is a number too large for a float. Valid: {valid}.") from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(_not_of_the_kind(name, value, valid)) from error


def _not_of_the_kind(name: str, value: object, valid: str) -> str:
    shape = getattr(value, "shape", None)
    what = f" of shape {tuple(shape)}" if isinstance(shape, tuple) else ""
    return f"{name} is of the type {type(value).__name__}{what}. Expected: {valid}."
