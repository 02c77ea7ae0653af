"""``harness cancel`` on this machine: ask processes to save and end, and launchers to start no more of the target.

A process is asked only if the heartbeat names it and it has the run's lock file open: the system may since have given
its number to another process.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from detector.errors import RecordError
from detector.runs.folder import RunDir, is_locked
from detector.runs.job import TrainJob
from detector.runs.status import ALIVE
from detector.storage.files import write_atomic
from detector.storage.reading import read_text
from harness.launch.hangs import descendants, end_processes
from harness.store.cancelled import cancelled_folder, note_cancelled_run

WAIT_SECONDS = 60.0  # for runs to save; a slower one still ends by itself
POLL_SECONDS = 0.2
LAUNCHERS_CHILD = b"submitit.local._local"  # in the command of what starts the processes of one run
HEARTBEAT_SECONDS = 3.0  # within which a process that has just taken the lock writes its number


def note_cancelled(runs: Path, trainings: Sequence[TrainJob]) -> None:
    """Tell the launchers that run now to start no more of these rows, of any seed. Later launchers ignore it."""
    for key in dict.fromkeys(replace(train, seed=0) for train in trainings):
        write_atomic(_note(runs, key), msgspec.json.encode(time.time()))


def is_cancelled(runs: Path, train: TrainJob, *, since: float) -> bool:
    """Whether the row was cancelled after ``since`` (seconds since the epoch)."""
    try:
        return float(read_text(_note(runs, train))) > since
    except (RecordError, ValueError):
        return False


def _note(runs: Path, train: TrainJob) -> Path:
    return cancelled_folder(runs) / replace(train, seed=0).id


def stop_runs(names: dict[Path, str], say: Callable[[str], None], *, wait: float = WAIT_SECONDS) -> bool:
    """Ask the runs that live on this machine to stop, and wait for them. names: by folder, what to call them.

    Returns whether any was asked. A run that another launcher takes over meanwhile is asked again.
    """
    begun = time.monotonic()
    living = {root: RunDir(root) for root in names if is_locked(RunDir(root))}
    asked: dict[Path, set[int]] = {root: set() for root in living}
    while living and time.monotonic() - begun < wait:
        for root, run in list(living.items()):
            if not is_locked(run):
                say(f"{names[root]}: {_ending(run)}")
                del living[root]
                continue
            pid = holder(run)
            if pid is not None and pid not in asked[root]:
                asked[root].add(pid)
                note_cancelled_run(run)  # before it ends: whoever looks then knows why
                silent = _silent_minutes(run)
                refusal = _terminate(pid) if silent is None else end_processes(_with_siblings(pid))
                done = f"asked process {pid} to save and stop"
                ended = f"ended process {pid}, which had made no progress for {silent:.0f} min" if silent else done
                say(f"{names[root]}: {refusal or ended}")
            if not asked[root] and time.monotonic() - begun > HEARTBEAT_SECONDS:
                say(f"{names[root]}: its process is on another machine, or not yours; stop it where it runs.")
                del living[root]
        time.sleep(POLL_SECONDS if living else 0)
    for root in living:
        say(f"{names[root]}: still saving after {wait:.0f} s; it will end. Look again: harness status")
    return bool(asked)


def holder(run: RunDir) -> int | None:
    """The process that the heartbeat names, if it lives here and has the run's lock file open."""
    try:
        status = run.read_status()
        if status is None:
            return None
        lock = os.stat(run.root / ".lock")
        descriptors = list(Path(f"/proc/{status.pid}/fd").iterdir())
    except (OSError, RecordError):  # gone, of another user, on another machine, or a system without /proc
        return None
    return status.pid if any(_is_file(path, lock) for path in descriptors) else None


def _is_file(descriptor: Path, file: os.stat_result) -> bool:
    try:
        return os.path.samestat(descriptor.stat(), file)
    except OSError:  # it was closed meanwhile
        return False


def _silent_minutes(run: RunDir) -> float | None:
    """How long a run of this machine has made no progress, where that is too long: it would not hear a request."""
    try:
        status = run.read_status()
    except (OSError, RecordError):
        return None
    if status is None or status.phase not in ALIVE or not status.silence:
        return None
    silent = time.time() - status.progressed  # both by the clock of this machine
    return silent / 60 if silent > status.silence else None


def _with_siblings(pid: int) -> list[int]:
    """The process, the others of its run, and all that they started."""
    try:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        of_launcher = LAUNCHERS_CHILD in Path(f"/proc/{parent}/cmdline").read_bytes()
    except (OSError, ValueError, IndexError):
        of_launcher = False
    return descendants(parent) if of_launcher else [pid, *descendants(pid)]


def _terminate(pid: int) -> str | None:
    """Send SIGTERM once. Returns why that was not possible, or None."""
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return None  # it has just ended by itself
    except PermissionError:
        return f"process {pid} belongs to another user"
    return None


def _ending(run: RunDir) -> str:
    try:
        status = run.read_status()
    except RecordError:
        status = None
    if status is None:
        return "ended"
    if status.phase == "stopped":
        return f"{status.message}; resumes with the same command"
    return {"done": "was done before it stopped", "failed": f"failed: {status.message}"}.get(status.phase, "ended")
