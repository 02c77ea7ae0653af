"""``harness status --watch``: the states again and again, as long as anything waits or runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detector.storage.shown import shown
from harness.cli.options import put
from harness.console.layout import draws, wrapped

if TYPE_CHECKING:
    from harness.status.find import FoundRuns
    from harness.status.observe import Observed

WATCH_SECONDS = 2.0


@dataclass(frozen=True)
class Look:
    """What one look found. launching: whether a command here still has some of it to do."""

    found: FoundRuns
    observed: list[Observed]
    launching: bool = False


def watch_runs(look: Callable[[], Look], first: Look) -> Look:
    """Redraw while anything waits or runs; without a terminal, print the lines of runs whose state changed."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from harness.status.text import state_lines

    console = Console()
    now = first
    if not draws(console):
        last: dict[object, tuple[str, int | None]] = {}
        for now in _looks(look, first):
            for item, line in zip(now.observed, state_lines(now.observed), strict=True):
                progress = item.state.progress
                mark = (item.state.kind, None if progress is None else int(progress * 10))
                if last.get(item.known.key) != mark:
                    last[item.known.key] = mark
                    put(line)
        return now
    with Live(console=console, auto_refresh=False, transient=True) as live:
        for now in _looks(look, first):
            lines = wrapped(shown("\n".join(state_lines(now.observed, console.width))), console.width)
            live.update(Text(lines, no_wrap=True, overflow="ellipsis"), refresh=True)
    return now


def _looks(look: Callable[[], Look], now: Look) -> Iterator[Look]:
    """The first look, then one every ``WATCH_SECONDS``, until two in a row find that nothing waits or runs.

    One is not enough: a run that has ended is still the launcher's for a moment, or not yet in Slurm's queue again.
    """
    from harness.status.observe import is_over

    quiet = 0
    while True:
        yield now
        quiet = quiet + 1 if is_over(now.observed) and not now.launching else 0
        if quiet == 2:
            return
        time.sleep(WATCH_SECONDS)
        now = look()
