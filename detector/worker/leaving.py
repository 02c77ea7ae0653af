"""Which signals end a process of a run at once, and why the run left. Free of torch.

The worker saves and says why it left; whether its job is queued again is the batch script's to decide.
"""

from __future__ import annotations

import signal
from signal import SIGINT, SIGTERM, Signals
from typing import TYPE_CHECKING, Literal

from detector.training.stop import STOP_SIGNALS, StopFlag

if TYPE_CHECKING:
    from detector.device.world import World

STOPPED = 130  # exit code of rank 0 after a stop


def why_left(stop: StopFlag, *, wait: bool) -> Literal["", "time", "asked"]:
    """What stopped the run: its time is nearly up (USR2), or somebody, or another job, wants it to end.

    wait: whether to wait a little for the signal where another process of the run had it before this one. "": this
    process had none.
    """
    first = stop.wait_for_first() if wait else stop.first
    if first is None:
        return ""
    return "time" if first == signal.SIGUSR2 else "asked"


def exit_code(rank: int, *, under_slurm: bool) -> int:
    """Of a process that stopped. srun ends all processes as soon as one fails: rank 0 alone may, when it has saved."""
    return 0 if rank and under_slurm else STOPPED


def signals_at_once(world: World) -> tuple[Signals, ...]:
    """Those that stop this process where nothing needs saving.

    When the time is up, rank 0 ends the run; the others would leave it waiting in a collective.
    """
    return STOP_SIGNALS if world.is_main else (SIGINT, SIGTERM)
