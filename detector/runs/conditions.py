"""How a training was executed, start by start. Free of torch."""

from __future__ import annotations

from typing import NamedTuple


def execution_notes(executions: list[list[int]]) -> tuple[str, ...]:
    """A record's note on a training that was compiled, or resumed under other conditions than it began with."""
    ways = ", then ".join(str(Conditions(way[0], way[1], len(way) > 2)) for way in executions)
    if len(executions) > 1:
        return (f"resumed in another way ({ways}): equal to an undisturbed run up to float rounding only",)
    return (f"{ways}: equal to other runs up to float rounding only",) if "compiled" in ways else ()


class Conditions(NamedTuple):
    """What the rounding of sums depends on."""

    processes: int
    threads: int  # of each process
    compiled: bool = False  # the network, by torch.compile

    def __str__(self) -> str:
        return f"{self.processes} processes of {self.threads} threads{', compiled' if self.compiled else ''}"
