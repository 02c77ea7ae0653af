"""Asks Slurm to queue a job again that it ends before the run is done. Free of torch."""

from __future__ import annotations

import os
import signal
import subprocess
from signal import SIGINT, SIGTERM, Signals
from typing import TYPE_CHECKING

from detector.runs.assignment import Assignment
from detector.training.stop import STOP_SIGNALS, StopFlag

if TYPE_CHECKING:
    from detector.device.world import World


SCONTROL_SECONDS = 60.0


def slurm_job() -> str | None:
    """The Slurm job, or element of an array, that this process was submitted as; None for any other process.

    None, too, for a process that a person starts inside an allocation: its end is not the job's.
    """
    return job_id() if os.environ.get("SUBMITIT_EXECUTOR") == "slurm" else None


def job_id() -> str:
    """Of the job that this process is in, as scontrol and squeue write it; "" outside of Slurm."""
    array, element = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{element}" if array and element else os.environ.get("SLURM_JOB_ID", "")


def after_stop(stop: StopFlag, max_requeues: int) -> str:
    """Ask Slurm to start this job again, where Slurm and no person stopped it; returns what to add to the last message.

    USR2 says that the time is nearly up. TERM says that the job makes room for another one, or that a person cancelled
    it: Slurm itself knows which, and queues a job that makes room again only if it has to kill it.
    """
    if max_requeues == 0:
        return ""
    first = stop.wait_for_first()
    if first != signal.SIGUSR2 and not (first == signal.SIGTERM and _makes_room(job_id())):
        return ""
    return f"; {queue_again(max_requeues)[1]}"


def queue_again(max_requeues: int) -> tuple[bool, str]:
    """Ask Slurm to start this job once more; whether it will, and a message for the log."""
    count = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    if count >= max_requeues:
        return False, f"not queued again: it was {count} times, the most that the cluster file allows (max_requeues)"
    code, said = scontrol("requeue", job_id())
    if code != 0:
        return False, f"it could not be queued again: {said.strip()}"
    return True, f"queued again ({count + 1} of at most {max_requeues})"


def job_fields(job: str) -> dict[str, str]:
    """What Slurm knows of a job (JobState, StartTime, ...); empty where it does not answer."""
    code, said = scontrol("show", "job", "--oneliner", job)
    return dict(part.split("=", 1) for part in said.split() if "=" in part) if code == 0 else {}


def _makes_room(job: str) -> bool:
    """Whether the job was chosen since its start to make room, and is not cancelled (then it is not RUNNING)."""
    fields = job_fields(job)
    chosen, start = fields.get("PreemptTime", "None"), fields.get("StartTime", "")
    # Times are ISO 8601, of one clock: their order is that of the letters.
    return fields.get("JobState") == "RUNNING" and chosen != "None" and chosen >= start


def scontrol(*arguments: str) -> tuple[int, str]:
    """Slurm's exit code and what it said; 1 and why where it is not there or does not answer."""
    try:
        done = subprocess.run(
            ["scontrol", *arguments], capture_output=True, text=True, check=False, timeout=SCONTROL_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, done.stdout + done.stderr


def signals_at_once(assignment: Assignment, world: World) -> tuple[Signals, ...]:
    """Those that stop this process where nothing needs saving.

    A job that will start again is ended by its rank 0; the others would leave it waiting in a collective.
    """
    return (SIGINT, SIGTERM) if not world.is_main and assignment.max_requeues else STOP_SIGNALS
