"""What a person sees while runs go on: bars with an ETA in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from detector.rundir import Status

# Of a run's time, roughly, what training takes; the rest is the evaluation.
TRAINING_SHARE = 0.92
LINE_SECONDS = 20.0


class View(Protocol):
    """Told of heartbeats and ends by the launcher."""

    def update(self, train_id: str, status: Status | None) -> None:
        """A run's newest heartbeat."""

    def finish(self, train_id: str, text: str) -> None:
        """A run ended."""


def fraction_done(status: Status | None) -> float:
    """Share of a run that is behind it, 0..1."""
    if status is None or status.iterations == 0:
        return 0.0
    if status.phase == "done":
        return 1.0
    if status.phase == "evaluating":
        return TRAINING_SHARE + (1 - TRAINING_SHARE) * status.progress
    return TRAINING_SHARE * status.iteration / status.iterations


def describe(status: Status | None) -> str:
    """A few words on a heartbeat."""
    if status is None or status.phase == "starting":
        return "starting"
    if status.phase == "training":
        loss = f", loss {status.loss:.3f}" if status.loss is not None else ""
        return f"iteration {status.iteration}/{status.iterations}{loss}"
    return f"evaluating {status.progress:.0%}" if status.phase == "evaluating" else status.phase


def duration(seconds: float) -> str:
    """As 1:02 or 3:04:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class RunsView:
    """Progress of several runs together. names: by training id, what a person calls the run."""

    def __init__(self, names: dict[str, str], console: Console) -> None:
        self.names, self.console = names, console
        self.done: dict[str, float] = dict.fromkeys(names, 0.0)
        self.first: dict[str, float] = {}  # where each run stood when first seen: a resume starts ahead
        self.finished = 0
        self.started = time.monotonic()
        self.last_line = self.started
        self.tasks: dict[str, TaskID] = {}
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>4.0f}%  {task.fields[text]}"),
            console=console,
            transient=True,
        )
        self.total = self.progress.add_task(f"{len(names)} runs", total=1.0, text="")

    def __enter__(self) -> RunsView:
        if self.console.is_terminal:
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def update(self, train_id: str, status: Status | None) -> None:
        """Redraw the run's bar, or print a line about all runs every 20 seconds."""
        if status is None:
            return
        self.done[train_id] = fraction_done(status)
        if status.phase != "starting":
            self.first.setdefault(train_id, self.done[train_id])
        if train_id not in self.tasks:
            self.tasks[train_id] = self.progress.add_task(f"  {self.names[train_id]}", total=1.0, text="")
        self.progress.update(self.tasks[train_id], completed=self.done[train_id], text=describe(status))
        self.progress.update(self.total, completed=self.overall, text=self._summary())
        if not self.console.is_terminal and time.monotonic() - self.last_line >= LINE_SECONDS:
            self.last_line = time.monotonic()
            self.console.print(f"{self.overall:4.0%}  {self._summary()}", highlight=False)

    def finish(self, train_id: str, text: str) -> None:
        """Print the run's end and drop its bar."""
        self.finished += 1
        self.done[train_id] = 1.0
        if train_id in self.tasks:
            self.progress.remove_task(self.tasks.pop(train_id))
        self.console.print(
            f"[{self.finished}/{len(self.names)}] {self.names[train_id]}  {text}  ({duration(self.elapsed)})",
            highlight=False,
            markup=False,
        )

    @property
    def overall(self) -> float:
        """Share of all runs together."""
        return sum(self.done.values()) / len(self.done)

    @property
    def elapsed(self) -> float:
        """Seconds since this command began to run them."""
        return time.monotonic() - self.started

    def _summary(self) -> str:
        gained = self.overall - sum(self.first.values()) / len(self.done)
        eta = duration(self.elapsed * (1 - self.overall) / gained) if gained > 0.01 else "?"
        return f"ETA {eta}, {self.finished}/{len(self.names)} done, {duration(self.elapsed)} elapsed"


@contextmanager
def count_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over ``total`` things with an ETA; gives the function that advances it. Silent without a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def download_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Bars of what is being fetched; gives the function (what, done, total) that moves them."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:

        def move(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done)

        yield move
