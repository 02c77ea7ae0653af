"""The state for every pair of a heartbeat and an answer of the queue."""

from __future__ import annotations

from itertools import product
from typing import Any, get_args

import pytest

from detector.runs.status import Phase, Status
from harness.slurm.states import SchedulerState
from harness.status.kinds import FAILED, LIVING, RESUMABLE, STALE_SECONDS, Kind, Seen
from harness.status.state import decide

NOW = 1_000_000.0
SUBMITTED = NOW - 2000
JOB = "17_3"


def beat(phase: Phase, age: float = 5.0, job: str | None = JOB, **values: Any) -> Status:
    return Status(phase=phase, time=NOW - age, pid=1, job=job, iteration=50, iterations=100, **values)


HEARTBEATS: dict[str, Status | None] = {
    "none": None,
    "alive": beat("training"),
    "silent": beat("training", STALE_SECONDS + 1),
    "hung": beat("training", progressed=NOW - 1000, silence=600.0),
    "time was up": beat("stopped", left="time"),
    "was asked to stop": beat("stopped", left="asked"),
    "failed": beat("failed", message="KeyError: 1"),
    "trained": beat("done"),
    # Left by the job before this one.
    "earlier, killed": beat("training", 3000, "9_3"),
    "earlier, stopped": beat("stopped", 3000, "9_3"),
    # Of no job: a person started it on some machine, since the submission or before it.
    "elsewhere, alive": beat("training", job=None),
    "elsewhere, stopped since": beat("stopped", 1000, None),
    "elsewhere, stopped before": beat("stopped", 3000, None),
}


def gone(reason: str = "", cause: Any = "", code: int | None = None) -> SchedulerState:
    return SchedulerState("gone", reason, cause=cause, exit_code=code, job=JOB)


QUEUES: dict[str, SchedulerState | None] = {
    "no queue": None,
    "submitting": SchedulerState("submitting"),
    "held": SchedulerState("held", "JobHeldUser", job=JOB),
    "pending": SchedulerState("pending", "Priority", job=JOB),
    "pending, 20 s ago": SchedulerState("pending", "Priority", job=JOB, seen=NOW - 20),
    "requeued": SchedulerState("pending", "BeginTime", 1, job=JOB),
    "running": SchedulerState("running", job=JOB),
    "gone": gone(),  # where Slurm keeps no accounts
    "gone, cancelled": gone("CANCELLED by 7", "cancelled"),
    "gone, preempted": gone("PREEMPTED", "preempted"),
    "gone, time": gone("TIMEOUT", "time"),
    "gone, memory": gone("OUT_OF_MEMORY", "memory", 253),
    "gone, node": gone("NODE_FAIL", "node"),
    "gone, exit code": gone("FAILED", "failed", 1),
    "unknown": SchedulerState("unknown", "squeue failed", job=JOB),
    "refused": SchedulerState("refused", "Invalid qos", seen=SUBMITTED),
}

# A queue that has the job decides, but for its own heartbeat since an older answer, and for a living process that is
# of no job. What ran before the job is no word of it.
WAITS = {"submitting": "pending", "held": "held", "pending": "pending", "requeued": "requeued"}
DIED = {
    "gone": "lost",  # nothing is known of it
    "gone, cancelled": "cancelled",
    "gone, preempted": "preempted",
    "gone, time": "failed",
    "gone, memory": "failed",
    "gone, node": "failed",
    "gone, exit code": "died before start",
}
SPOKEN = {"gone, cancelled": "cancelled", "gone, preempted": "preempted"}  # Slurm did that after the run's last word
WORDLESS = WAITS | DIED | {"pending, 20 s ago": "pending", "running": "starting", "refused": "refused"}
EXPECTED: dict[str, dict[str, str]] = {
    "none": WORDLESS | {"no queue": "not started", "unknown": "unknown"},
    "alive": WORDLESS
    | {"gone, exit code": "failed"}
    | dict.fromkeys(("no queue", "pending, 20 s ago", "running", "unknown", "refused"), "running"),
    "silent": WORDLESS | {"gone, exit code": "failed", "no queue": "lost?", "running": "running", "unknown": "unknown"},
    "hung": WORDLESS
    | {"gone, exit code": "failed"}
    | dict.fromkeys(("no queue", "pending, 20 s ago", "running", "unknown", "refused"), "no progress"),
    # It may be queued again: only a queue that answers tells.
    "time was up": WORDLESS | dict.fromkeys(DIED, "stopped") | SPOKEN | {"no queue": "stopped", "unknown": "unknown"},
    # By scancel, since what is only preempted is queued again.
    "was asked to stop": WORDLESS
    | dict.fromkeys(DIED, "stopped")
    | SPOKEN
    | {"gone": "cancelled", "no queue": "stopped", "unknown": "unknown"},
    "failed": WORDLESS | dict.fromkeys(DIED, "failed") | SPOKEN | {"no queue": "failed", "unknown": "unknown"},
    "trained": WORDLESS | dict.fromkeys(DIED, "stopped") | SPOKEN | {"no queue": "stopped", "unknown": "unknown"},
    "earlier, killed": WORDLESS | {"no queue": "lost?", "unknown": "unknown"},
    "earlier, stopped": WORDLESS | {"no queue": "stopped", "unknown": "unknown"},
    "elsewhere, alive": dict.fromkeys(QUEUES, "running"),
    "elsewhere, stopped since": WORDLESS
    | dict.fromkeys((*DIED, "refused"), "stopped")
    | {"no queue": "stopped", "unknown": "unknown"},
    "elsewhere, stopped before": WORDLESS | {"no queue": "stopped", "unknown": "unknown"},
}
PAIRS = list(product(HEARTBEATS, QUEUES))


@pytest.mark.parametrize(("heartbeat", "queue"), PAIRS)
def test_every_pair_of_heartbeat_and_queue_has_its_state(heartbeat: str, queue: str) -> None:
    seen = Seen(status=HEARTBEATS[heartbeat], scheduler=QUEUES[queue], submitted=SUBMITTED)
    assert decide(seen, NOW).kind == EXPECTED[heartbeat][queue]


@pytest.mark.parametrize(("heartbeat", "queue"), PAIRS)
def test_a_record_and_a_lock_of_this_machine_outweigh_both(heartbeat: str, queue: str) -> None:
    status, answer = HEARTBEATS[heartbeat], QUEUES[queue]
    assert decide(Seen(recorded=True, status=status, scheduler=answer), NOW).kind == "done"
    assert decide(Seen(locked=True, status=status, scheduler=answer), NOW).kind in (
        *("starting", "running", "no progress"),
    )


@pytest.mark.parametrize(("heartbeat", "queue"), [pair for pair in PAIRS if pair[1] == "unknown"])
def test_what_is_not_known_is_never_retried_nor_resumed(heartbeat: str, queue: str) -> None:
    kind = decide(Seen(status=HEARTBEATS[heartbeat], scheduler=QUEUES[queue], submitted=SUBMITTED), NOW).kind
    assert kind not in (*FAILED, *RESUMABLE, "not started", "done")


def test_each_kind_is_in_at_most_one_of_living_and_failed() -> None:
    assert set(LIVING).isdisjoint({*FAILED, *RESUMABLE})
    assert {*LIVING, *FAILED, *RESUMABLE} <= set(get_args(Kind))
    assert "cancelled" not in FAILED
