"""``harness logs``: what a run wrote, or what its processes printed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detector.errors import UsageError
from detector.runs.folder import RunDir
from harness.cli import completion
from harness.cli.options import (
    BatchSizeOption,
    DataOption,
    ProfileOption,
    SeedOption,
    SetOption,
    put,
    refuse,
    say,
)
from harness.cli.runs.finding import one_run
from harness.cli.runs.watch import WATCH_SECONDS
from harness.failures import log_tail

if TYPE_CHECKING:
    from harness.status.kinds import RunState

QUEUED = ("held", "pending", "requeued", "waiting for its turn", "unknown")


def logs(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="TABLE/ROW, a training's id or its first digits, its Slurm job (17 or 17_3), or a run's folder.",
            autocompletion=completion.rows,
        ),
    ],
    profile: ProfileOption = "paper",
    seed: SeedOption = 0,
    batch_size: BatchSizeOption = None,
    overrides: SetOption = None,
    data: DataOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print what is added, until the run ends.")] = False,
    rank: Annotated[
        int | None, typer.Option("--rank", min=0, help="Instead of the log: what the process of this rank printed.")
    ] = None,
    num_lines: Annotated[int, typer.Option("--lines", min=0, help="How many lines from the end; 0 for all.")] = 50,
) -> None:
    """Print a run's log or, with --rank, what one of its processes printed."""
    from harness.status import logs as run_logs

    run = one_run(name, profile, seed, overrides, data, batch_size)
    if "/" not in name or (Path(name) == run.root and Path(name).is_dir()):
        other = ("profile", "seed", "batch_size", "overrides", "data")
        refuse(context, other, f"chooses among the runs of a row; {name} is one run. Leave it out.")
    watched = Watched(run)

    def path() -> Path | None:
        if rank is None and (run.log.exists() or watched.is_living()):
            return run.log
        return run_logs.output(run, rank or 0)

    where = path()
    if where is None or not where.exists():
        known = ", ".join(map(str, run_logs.outputs(run))) or "none"
        if not (follow and watched.is_living()):
            what = "log" if rank is None else f"output of rank {rank} (there are of: {known})"
            raise UsageError(
                f"{run.root} has no {what} yet{watched.in_words()}. For its state: harness status; to wait for it: -f."
            )
    elif rank is None and where != run.log:
        say(f"It ended before its log began; this is what it printed ({where}):")
    size = where.stat().st_size if where is not None and where.exists() else 0
    if where is not None:
        put(log_tail.tail(where, num_lines), nl=False)
    if follow:
        try:
            run_logs.follow(path, size, watched.has_ended, lambda text: put(text, nl=False))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


class Watched:
    """The run whose log is followed: its state, asked for every two seconds only, and told where no log shows it."""

    def __init__(self, run: RunDir) -> None:
        from harness.status.observe import Queue

        self.run = run
        self._queue = Queue(run.root.parent)
        self._look = _seldom(self._see)
        self._said = ""

    def is_living(self) -> bool:
        """Whether it waits or runs; also where that is not known."""
        from harness.status.kinds import is_idle

        return not is_idle([self._look()])

    def has_ended(self) -> bool:
        """As ``is_living``, and tells a person why no line comes: it waits, or makes no progress."""
        from harness.status.words import state_text

        state = self._look()
        text = state_text(state)
        # Of a state with a time in it, only the kind is compared.
        mark = state.kind if state.kind in ("no progress", "unknown") else text
        if state.kind in (*QUEUED, "no progress") and mark != self._said:
            self._said = mark
            say(text if state.kind != "no progress" else f"{text}; to stop it: harness cancel {self.run.root.name}")
        elif state.kind not in (*QUEUED, "no progress"):
            self._said = ""
        return not self.is_living()

    def in_words(self) -> str:
        """Its state for the end of a sentence, where it waits or was never begun."""
        from harness.status.words import state_text

        state = self._look()
        return f": {state_text(state)}" if state.kind in QUEUED else ""

    def _see(self) -> RunState:
        from harness.status.observe import look_at_run

        return look_at_run(self.run, self._queue)


def _seldom(look: Callable[[], RunState]) -> Callable[[], RunState]:
    """The same answer, but asked for every two seconds only."""
    asked = 0.0
    answer: RunState | None = None

    def last() -> RunState:
        nonlocal asked, answer
        if answer is None or time.monotonic() - asked >= WATCH_SECONDS:
            asked, answer = time.monotonic(), look()
        return answer

    return last
