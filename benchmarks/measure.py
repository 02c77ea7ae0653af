"""Side by side in one run: the rounds alternate between the candidates, so that a busy machine slows all of them."""

from __future__ import annotations

import ctypes
import gc
import platform
import time
from collections.abc import Callable, Mapping
from statistics import median

from msgspec import Struct

from harness.registry.speeds import MeasuredSpeed


class Row(Struct, frozen=True, kw_only=True):
    """One line of the table: what is done, a peer that does the same, and the least time that the machine needs."""

    work: str  # what is done, and of what size
    peer: str
    peer_seconds: float
    seconds: float  # ours
    limit: str = ""  # what takes ``limit_seconds``, in words
    limit_seconds: float | None = None
    goal: str = ""  # the aim, in words: "10x", "<= 1.1x the limit"
    note: str = ""

    @property
    def ratio(self) -> float:
        """How many times faster than the peer."""
        return self.peer_seconds / self.seconds


class Curve(Struct, frozen=True, kw_only=True):
    """How a cost grows: seconds (or ``unit``) of each series over ``xs``."""

    title: str
    x: str
    xs: tuple[float, ...]
    series: dict[str, tuple[float, ...]]
    unit: str = "seconds"
    note: str = ""


class Goal(Struct, frozen=True, kw_only=True):
    """An aim that was set beforehand, and what was measured."""

    what: str
    value: float
    unit: str
    goal: float
    at_least: bool = False  # whether more is better

    @property
    def is_met(self) -> bool:
        """Whether the value is on the right side of the goal."""
        return self.value >= self.goal if self.at_least else self.value <= self.goal

    @property
    def aim(self) -> str:
        """The goal in words."""
        return f"{'>=' if self.at_least else '<='} {self.goal:g} {self.unit}"


class Report(Struct, frozen=True, kw_only=True):
    """What one benchmark module found on one device."""

    rows: tuple[Row, ...] = ()
    goals: tuple[Goal, ...] = ()
    speeds: tuple[MeasuredSpeed, ...] = ()  # for experiments/speeds.yaml
    curves: tuple[Curve, ...] = ()
    facts: dict[str, float | str] = {}


def compare(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 7,
    warmup: int = 1,
    wait: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """Median seconds of each, over rounds in which each runs once.

    wait: called before each reading of the clock (``torch.cuda.synchronize``). Garbage collection is off meanwhile.
    """
    for _ in range(warmup):
        for work in candidates.values():
            work()
    wait()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, work in candidates.items():
                start = time.perf_counter()
                work()
                wait()
                seconds[name].append(time.perf_counter() - start)
                gc.collect()
    finally:
        if collecting:
            gc.enable()
    return {name: median(values) for name, values in seconds.items()}


def keep_freed_memory() -> None:
    """From here on the process keeps memory that large tensors free, instead of giving it back to the system.

    To touch new memory for the first time costs more than most loops over it, so a candidate that makes more tensors
    would pay for that. Works with glibc alone; elsewhere nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda option, value: None)
    trim_threshold, mmap_max = -1, -4  # <malloc.h>
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, -1)


def processor() -> str:
    """The CPU's name as Linux has it, else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()
