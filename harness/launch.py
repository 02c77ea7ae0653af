"""Runs on this machine: all its GPUs or cores, several runs side by side where they fit, through submitit."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from detector.rundir import RunDir, Status
from detector.worker import Assignment, Worker
from harness.progress import View
from harness.registry import Execution

POLL_SECONDS = 0.5
STOP_SECONDS = 15.0  # for a run to save its state after Ctrl-C
FOREVER_MINUTES = 60 * 24 * 365


@dataclass(frozen=True)
class Slot:
    """A share of the machine for one run: these GPUs, or CPU threads where there are none."""

    gpus: tuple[int, ...]


@dataclass(frozen=True)
class Failure:
    """A run that ended without its records."""

    train_id: str
    message: str
    log: Path


@dataclass
class _Active:
    """A run in a slot; ``job`` is None where another living process trains it and we only watch."""

    assignment: Assignment
    run: RunDir
    job: Any
    slot: Slot


def make_slots(execution: Execution, *, runs: int) -> list[Slot]:
    """How many runs go side by side here: by GPUs, else by cores and free memory; at least one."""
    gpus = visible_gpus()
    wanted = execution.gpus_per_run
    if wanted == 0 or not gpus:
        cores = usable_cores() // execution.threads
        memory = int(_free_memory_gb() // execution.memory_gb)
        return [Slot(())] * max(1, min(cores, memory, runs))
    size = len(gpus) if wanted == "all" else min(wanted, len(gpus))
    return [Slot(tuple(gpus[first : first + size])) for first in range(0, len(gpus) - size + 1, size)][: max(1, runs)]


def processes_for(groups_per_batch: int, gpus: int) -> int:
    """The most processes, one a GPU, that divide the groups of a batch."""
    return max(count for count in range(1, max(gpus, 1) + 1) if groups_per_batch % count == 0)


def visible_gpus() -> list[int]:
    """Indices of the GPUs that this process may use, without importing torch."""
    restricted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if restricted is not None:
        return [int(item) for item in restricted.split(",") if item.strip().isdigit()]
    if shutil.which("nvidia-smi") is None:
        return []
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return list(range(sum(line.startswith("GPU ") for line in listing.stdout.splitlines())))


def run_local(assignments: list[Assignment], slots: list[Slot], view: View) -> list[Failure]:
    """Run all assignments to their records; returns those that failed. KeyboardInterrupt passes after a clean stop."""
    waiting, active, failures = list(assignments), list[_Active](), list[Failure]()
    free = list(slots)
    with _terminate_is_interrupt():
        try:
            while waiting or active:
                while waiting and free:
                    active.append(_start(waiting.pop(0), free.pop(0)))
                time.sleep(POLL_SECONDS)
                for item in list(active):
                    train_id = item.assignment.train.id
                    view.update(train_id, item.run.read_status())
                    if not _ended(item):
                        continue
                    active.remove(item)
                    free.append(item.slot)
                    if is_done(item.assignment):
                        view.finish(train_id, "done")
                    elif item.job is None:  # the other process went away: take it over
                        waiting.append(item.assignment)
                    else:
                        failure = _failure(item)
                        failures.append(failure)
                        view.finish(train_id, f"failed: {failure.message}")
        except KeyboardInterrupt:
            _stop(active)
            raise
    return failures


def is_done(assignment: Assignment) -> bool:
    """Whether every record of the assignment is there."""
    run = RunDir(Path(assignment.run_dir))
    return all(run.record(job.id).exists() for job in assignment.evals)


def _start(assignment: Assignment, slot: Slot) -> _Active:
    run = RunDir(Path(assignment.run_dir))
    if run.is_locked():
        return _Active(assignment, run, None, slot)
    import submitit

    batch = assignment.train.batch
    tasks = processes_for(batch.images // batch.images_per_group, len(slot.gpus))
    executor = submitit.LocalExecutor(folder=run.submitit)
    executor.update_parameters(
        timeout_min=FOREVER_MINUTES,
        tasks_per_node=tasks,
        gpus_per_node=len(slot.gpus),
        visible_gpus=slot.gpus,
        stderr_to_stdout=True,
    )
    run.status.unlink(missing_ok=True)  # an earlier start's last words are not this one's
    job = executor.submit(Worker(replace(assignment, device="cuda" if slot.gpus else "cpu")))
    return _Active(assignment, run, job, slot)


def _ended(item: _Active) -> bool:
    return not item.run.is_locked() if item.job is None else bool(item.job.done())


def _failure(item: _Active) -> Failure:
    status = item.run.read_status()
    output = item.job.paths.stdout
    if status is not None and status.phase == "failed":
        return Failure(item.assignment.train.id, status.message, item.run.log)
    where = _last_words(status)
    tail = output.read_text(errors="replace").strip().splitlines()[-1:] if output.exists() else []
    reason = f"the process ended without a word while {where}"
    return Failure(item.assignment.train.id, f"{reason}{': ' + tail[0] if tail else ''}", output)


def _last_words(status: Status | None) -> str:
    if status is None:
        return "starting"
    return f"{status.phase}, iteration {status.iteration} of {status.iterations} (killed, or out of memory?)"


def _stop(active: list[_Active]) -> None:
    """Ask our runs to save and end, and wait a little for them."""
    ours = [item for item in active if item.job is not None]
    for item in ours:
        item.job.cancel(check=False)
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline and any(not item.job.done() for item in ours):
        time.sleep(0.1)


@contextmanager
def _terminate_is_interrupt() -> Iterator[None]:
    """SIGTERM stops as cleanly as Ctrl-C."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_memory_gb() -> float:
    """Memory that new processes can have: Linux's estimate, else all free pages."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 2**20
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
