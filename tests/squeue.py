"""Lines as squeue prints them, for stand-ins of it."""

from __future__ import annotations


def squeue_line(job: str, state: str, reason: str, name: str, *, restarts: int = 0) -> str:
    """One job in columns of fixed width."""
    return f"{job:48}{state:24}{restarts!s:16}{name:64}{reason:160}\n"
