"""Runs here that get no further although their processes live: their stacks go into the log, and they are ended.

A run says in its heartbeat when it last got ahead, and after how long it counts as hung (``detector.runs.status``).
Only the contents of heartbeats are compared, and seconds are counted by this process: not those in which it was stopped
itself, or waited for a file server.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from detector.errors import RecordError
from detector.runs.folder import RunDir
from detector.runs.status import ALIVE, Status
from detector.storage.reading import regular_file
from harness.failures.log_tail import ANY_SIZE

MOST_STARTS = 3  # how often a hung run is started again from the same point
SILENT_START_SECONDS = 1800.0  # without a first heartbeat: torch is read over a slow file server
STACKS_SECONDS = 5.0  # for the processes to print their stacks
MOST_BETWEEN_LOOKS = 10.0  # seconds that count at most from one look to the next
MOST_STACKS = 200_000  # bytes per process

Point = tuple[str, ...]  # how far a run has come


@dataclass
class Watch:
    """Watches one start of a run. ``silent``: seconds since it last got ahead, as far as this process saw."""

    silent: float = 0.0
    limit: float = SILENT_START_SECONDS
    hung: float | None = None  # when it was asked for its stacks (monotonic)
    _seen: float | None = None
    _looked: float | None = None
    _printed: dict[Path, int] = field(default_factory=dict)

    def look(self, status: Status | None, now: float) -> bool:
        """Whether it counts as hung. status: None where there is no heartbeat of this start, or it is not readable.

        now: by a clock that only this process reads.
        """
        passed = 0.0 if self._looked is None else min(now - self._looked, MOST_BETWEEN_LOOKS)
        self._looked = now
        self.silent += passed
        if status is None:
            if self._seen is not None:  # its storage is away
                self.silent = 0.0
        elif status.progressed != self._seen:
            self._seen, self.silent = status.progressed, 0.0
        if status is not None:
            self.limit = status.silence or float("inf")
        return self.silent > self.limit

    @property
    def words(self) -> str:
        """For a person, and for the class of failure."""
        return f"no progress for {self.silent / 60:.0f} min"

    def ask_for_stacks(self, outputs: list[Path], pids: list[int], now: float) -> None:
        """Tell the processes to print their stacks, and remember where their outputs ended before. now: monotonic."""
        self.hung = now
        self._printed = {path: path.stat().st_size if path.exists() else 0 for path in outputs}
        _send(catching(pids), signal.SIGQUIT)

    def stacks(self) -> Iterator[str]:
        """What each rank printed since it was asked, below a heading."""
        for rank, (path, start) in enumerate(self._printed.items()):
            text = ""
            with suppress(RecordError, OSError), regular_file(path, most=ANY_SIZE) as file:
                file.seek(start)
                text = file.read(MOST_STACKS).decode(errors="replace")
            yield f"stacks of rank {rank}:\n{text.strip() or 'it printed none'}\n"


def catching(pids: list[int]) -> list[int]:
    """Those that answer SIGQUIT: the others would end by it, and leave a file of their memory."""
    return [pid for pid in pids if _caught(pid) >> (signal.SIGQUIT - 1) & 1]


def _caught(pid: int) -> int:
    """The signals that a process handles, as bits; none where the system cannot tell."""
    with suppress(OSError, StopIteration, ValueError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("SigCgt:")), 16)
    return 0


def end_processes(pids: list[int]) -> str | None:
    """Kill them: a process that hangs does not answer to anything else. Returns why that was not possible, or None."""
    return _send(pids, signal.SIGKILL)


def note_hang(run: RunDir, watch: Watch, what: str) -> None:
    """Write the hang, what becomes of it, and the stacks to the run's log."""
    when = time.strftime("%Y-%m-%d %H:%M:%S")
    with suppress(OSError), open(run.log, "a") as log:
        log.write(f"{when} WARNING harness: {watch.words}; its processes were ended; {what}\n")
        log.writelines(watch.stacks())


def point(run: RunDir) -> Point:
    """How far a run has come: its newest checkpoint, and the evaluations that it has finished."""
    newest = max((path.name for path in run.checkpoints.glob("*.pt")), default="the beginning")
    return newest, *sorted(path.parent.name for path in run.root.glob("evals/*/record.json"))


def is_alive(status: Status | None) -> bool:
    """Whether the heartbeat says that the run still had something to do."""
    return status is None or status.phase in ALIVE


def descendants(pid: int) -> list[int]:
    """The processes that ``pid`` and its children have started; none where the system cannot tell."""
    found = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def children(pid: int) -> list[int]:
    """The processes that ``pid`` has started; none where the system cannot tell."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _send(pids: list[int], number: signal.Signals) -> str | None:
    refused = None
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass  # it has just ended by itself
        except PermissionError:
            refused = f"process {pid} belongs to another user"
    return refused
