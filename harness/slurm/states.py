"""What a queue says of a run's job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Of the job or array element: being submitted; held by somebody; waiting; running; not in the queue any more; of a
# queue that cannot be asked now, or not from here; not taken by Slurm.
Phase = Literal["submitting", "held", "pending", "running", "gone", "unknown", "refused"]
Cause = Literal["", "preempted", "cancelled", "time", "memory", "node", "failed", "completed"]


@dataclass(frozen=True)
class SchedulerState:
    """What a queue says of a run's job.

    reason: why it waits, how it ended, why it is not known, or what Slurm said when it refused it, as Slurm puts it.
    cause: how it ended, where Slurm says so. exit_code: of a job that is gone, if known; negative or above 128: a
    signal. job: its id, with the index of an array's element. cluster: the cluster file as the command was given it.
    user: who submitted it; "" for oneself. seen: when this was so, in seconds since the epoch; None: now.
    """

    phase: Phase
    reason: str = ""
    requeues: int = 0
    exit_code: int | None = None
    cause: Cause = ""
    job: str = ""
    cluster: str = ""
    user: str = ""
    seen: float | None = None
