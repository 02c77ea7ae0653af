"""The runs of one command: a bar for each on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from detector.runs.status import Status, fraction_done, progress_text
from detector.storage.shown import one_line, shown
from harness.console.bars import LINE_SECONDS
from harness.console.layout import draws, wrapped
from harness.units import duration

BAR = 20  # columns
PERCENT = 7  # columns of a bar's percentage, and of the space around it
BAR_WIDTH = 30  # columns of a bar, its percentage, and the space around them
TEXT_WIDTH = 80


class _Bars(Progress):
    """A bar per task, and its text beside it, or in a line of its own where that does not fit."""

    def __init__(self, console: Console, *, names: int, beside: bool) -> None:
        self.beside = beside  # first: the parent draws at once
        bar = min(BAR, max(BAR // 4, console.width - names - PERCENT))
        text = (TextColumn(" {task.fields[text]}", markup=False),) if beside else ()
        percent = TextColumn("{task.percentage:>4.0f}%")
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=bar),
            percent,
            *text,
            console=console,
            transient=True,
        )

    def get_renderables(self) -> Iterator[RenderableType]:
        """For rich, each time it draws."""
        if self.beside:
            yield self.make_tasks_table(self.tasks)
            return
        for task in self.tasks:
            yield self.make_tasks_table([task])
            if task.fields["text"]:
                lines = wrapped(f"  {task.fields['text']}", self.console.width)
                yield Text(lines, no_wrap=True, overflow="ellipsis")


class RunsView:
    """The progress of several runs together. names: by training id, what a person calls the run."""

    def __init__(self, names: dict[str, str], console: Console) -> None:
        self.names, self.console = {key: one_line(name) for key, name in names.items()}, console
        self.done: dict[str, float] = dict.fromkeys(names, 0.0)
        self.first: dict[str, float] = {}  # the share done when first seen: a resumed run does not start at 0
        self.finished = 0
        self.started = time.monotonic()
        self.last_line = self.started
        self.tasks: dict[str, TaskID] = {}
        room = console.width - BAR // 4 - PERCENT
        self.width = min(room, 2 + max(map(len, names.values()), default=0))
        self.progress = _Bars(console, names=self.width, beside=console.width >= self.width + BAR_WIDTH + TEXT_WIDTH)
        self.total = self.progress.add_task(f"{f'{len(names)} runs':{self.width}}", total=1.0, text="")
        self.noted: set[str] = set()

    def __enter__(self) -> RunsView:
        if draws(self.console):
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def update(self, train_id: str, status: Status | None) -> None:
        """Redraw the run's bar or, without a terminal, print a line about all runs every 20 seconds."""
        if status is None:
            return
        self.done[train_id] = fraction_done(status)
        if status.phase != "starting":
            self.first.setdefault(train_id, self.done[train_id])
        if train_id not in self.tasks:
            self.tasks[train_id] = self.progress.add_task(
                f"{_cut(f'  {self.names[train_id]}', self.width):{self.width}}", total=1.0, text=""
            )
        if status.note and train_id not in self.noted:
            self.noted.add(train_id)
            self.note(train_id, status.note)
        self.progress.update(self.tasks[train_id], completed=self.done[train_id], text=one_line(progress_text(status)))
        self.progress.update(self.total, completed=self.overall, text=self._summary())
        if not draws(self.console) and time.monotonic() - self.last_line >= LINE_SECONDS:
            self.last_line = time.monotonic()
            self.console.print(f"{self.overall:4.0%}  {self._summary()}", highlight=False)

    def note(self, train_id: str, text: str) -> None:
        """Print a line about a run that goes on."""
        self.console.print(f"{self.names[train_id]}: {one_line(text)}", highlight=False, markup=False)

    def finish(self, train_id: str, text: str) -> None:
        """Print the run's end and drop its bar."""
        self.finished += 1
        self.done[train_id] = 1.0
        if train_id in self.tasks:
            self.progress.remove_task(self.tasks.pop(train_id))
        self.console.print(
            f"[{self.finished}/{len(self.names)}] {self.names[train_id]}  {shown(text)}  ({duration(self.elapsed)})",
            highlight=False,
            markup=False,
        )

    @property
    def overall(self) -> float:
        """The share of all runs together that is done, 0..1."""
        return sum(self.done.values()) / len(self.done)

    @property
    def elapsed(self) -> float:
        """Seconds since the view was made."""
        return time.monotonic() - self.started

    def _summary(self) -> str:
        gained = self.overall - sum(self.first.values()) / len(self.done)
        eta = duration(self.elapsed * (1 - self.overall) / gained) if gained > 0.01 else "?"
        return f"ETA {eta}, {self.finished}/{len(self.names)} done, {duration(self.elapsed)} elapsed"


def _cut(name: str, width: int) -> str:
    return name if len(name) <= width else f"{name[: width - 3]}..."


def runs_view(names: dict[str, str]) -> RunsView:
    """The progress of runs on stderr. names: by training id, what a person calls the run."""
    return RunsView(names, Console(stderr=True))
