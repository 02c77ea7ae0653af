"""Progress bars with an ETA on a terminal; elsewhere silence, or a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from detector.storage.shown import one_line
from harness.console.layout import draws

LINE_SECONDS = 20.0


@contextmanager
def count_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over ``total`` things. Yields the function that advances it by a count. Silent without a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not draws(console)) as progress:
        task = progress.add_task(one_line(what), total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def download_bar() -> Iterator[Callable[[str, int, int], None]]:
    """One bar per download. Yields the function (what, done, total) that moves it. Silent without a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, transient=True, disable=not draws(console)) as progress:

        def move(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(one_line(what), total=total)
            progress.update(tasks[what], completed=done)

        yield move


@contextmanager
def share_bar(what: str) -> Iterator[Callable[[float], None]]:
    """A bar for one task. Yields the function that takes the share done. Without a terminal, a line now and then."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    said = time.monotonic()
    with Progress(*columns, console=console, transient=True, disable=not draws(console)) as progress:
        task = progress.add_task(one_line(what), total=1.0)

        def report(share: float) -> None:
            nonlocal said
            progress.update(task, completed=share)
            if not draws(console) and time.monotonic() - said >= LINE_SECONDS:
                said = time.monotonic()
                console.print(f"{one_line(what)}: {share:.0%}", highlight=False, markup=False)

        yield report
