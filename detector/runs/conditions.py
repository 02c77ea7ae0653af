"""How a training was executed, start by start. Free of torch."""

from __future__ import annotations

from typing import Any, NamedTuple


def execution_notes(executions: list[list[Any]]) -> tuple[str, ...]:
    """A record's note on a training that does not repeat to the last bit, or was resumed under other conditions."""
    ways = [Conditions(*way) for way in executions]
    words = ", then ".join(map(str, ways))
    if len(ways) > 1:
        return (f"resumed in another way ({words}): equal to an undisturbed run up to float rounding only",)
    return () if all(way.repeatable for way in ways) else (f"{words}: equal to other runs up to float rounding only",)


class Conditions(NamedTuple):
    """What the rounding of sums depends on."""

    processes: int
    threads: int  # of each process
    compiled: bool = False  # the network, by torch.compile
    gpu: str = ""  # its name; empty on a CPU
    deterministic: bool = False  # on a GPU: only algorithms that repeat their bits

    def __str__(self) -> str:
        on = f" on {self.gpu}" if self.gpu else ""
        extra = f"{', compiled' if self.compiled else ''}{', deterministic' if self.deterministic else ''}"
        return f"{self.processes} processes of {self.threads} threads{on}{extra}"

    def as_list(self) -> list[int | str]:
        """For a checkpoint: without the last values that are defaults, as older checkpoints have it."""
        values: list[int | str] = [self.processes, self.threads, self.compiled, self.gpu, self.deterministic]
        while values[-1] in (False, ""):
            values.pop()
        return values

    @property
    def repeatable(self) -> bool:
        """Whether the same training under these conditions gives the same bits."""
        return not self.compiled and (not self.gpu or self.deterministic)
