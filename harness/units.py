"""Seconds and bytes, as people read them, and how many runs one row may have."""

from __future__ import annotations

from typing import Final

MAX_SEEDS: Final = 1000  # per row: a plan of them all takes seconds, and no statistic needs more


def duration(seconds: float) -> str:
    """As 1:02 or 3:04:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def byte_size(count: int) -> str:
    """In units of 1000, as file systems count."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e3:.1f} kB"
