"""The state of a run, decided from what was seen of it. Reads no files. A run that is not seen may still be alive."""

from __future__ import annotations

from dataclasses import replace

from detector.runs.status import ALIVE, TRAINING_SHARE, Status, fraction_done, waiting_text
from harness.failures.classes import FailureName, classify
from harness.failures.log_tail import last_word
from harness.slurm.states import SchedulerState
from harness.status.kinds import STALE_SECONDS, Kind, RunState, Seen

# A living run writes its heartbeat every second or so: within this time one speaks against a queue that says otherwise.
FRESH_SECONDS = 60.0
CLOCK_SECONDS = 30.0  # by which the clocks of machines may differ, as 'harness doctor' wants it
_BY_CAUSE: dict[str, FailureName] = {"memory": "host memory", "node": "node", "time": "time"}


def decide(seen: Seen, now: float) -> RunState:
    """The state now.

    Evidence in this order: records; the lock of a process of this machine; a heartbeat that is newer than the queue's
    answer; the queue; the heartbeat. One without a process here may be another machine's: it counts for
    ``STALE_SECONDS``.
    """
    if seen.recorded:
        return RunState("done", seen.evaluations, ap=seen.ap, health=seen.health)
    queue = None if seen.scheduler is None or _was_started_since(seen, seen.scheduler) else seen.scheduler
    if seen.locked:
        return _living(seen.status, queue, now, seen.written)
    if queue is None:
        return _without_queue(seen, now)
    if _lives_elsewhere(seen.status, queue, now):
        own = seen.status is not None and seen.status.job is not None and _is_own(seen.status, queue)
        here = own and queue.phase not in ("unknown", "refused")
        state = _living(seen.status, queue if own else None, now, seen.written, here=here)
        return replace(state, submitted=own)
    state = _by_queue(seen, queue, now)
    asked = None if queue.seen is None else max(0.0, now - queue.seen)
    return replace(state, submitted=True, job=queue.job, cluster=queue.cluster, user=queue.user, asked=asked)


def _was_started_since(seen: Seen, queue: SchedulerState) -> bool:
    """Whether a person started the run on some machine since the submission that the queue speaks of ended."""
    status = seen.status
    if status is None or queue.phase not in ("gone", "refused"):
        return False
    submitted = seen.submitted or queue.seen or 0.0
    return status.job is None and (bool(queue.job) or queue.phase == "refused") and status.time > submitted


def _is_own(status: Status, queue: SchedulerState) -> bool:
    """Whether the heartbeat is of the job that the queue speaks of."""
    return not queue.job or status.job == queue.job


def _lives_elsewhere(status: Status | None, queue: SchedulerState, now: float) -> bool:
    """Whether a heartbeat shows that the run lives, whatever the queue says."""
    if status is None or status.phase not in ALIVE:
        return False
    age = _age(status, now)
    if queue.phase in ("unknown", "refused"):
        return age < STALE_SECONDS
    if status.job is None and (queue.job or queue.phase == "submitting"):  # a person started it on some machine
        return age < FRESH_SECONDS
    # A job that is queued again keeps its id. A job that is gone does not come back.
    waits = queue.phase in ("pending", "held")
    return waits and _is_own(status, queue) and queue.seen is not None and status.time > queue.seen


def _by_queue(seen: Seen, queue: SchedulerState, now: float) -> RunState:
    status = seen.status
    if queue.phase == "refused":
        return RunState("refused", queue.reason)
    if queue.phase == "unknown":
        return _unknown(seen, queue, now)
    if queue.phase == "running":
        own = status if status is not None and _is_own(status, queue) else None
        return _living(own, queue, now, seen.written)
    if queue.phase == "gone":
        return _gone(seen, queue, now)
    kind: Kind = "held" if queue.phase == "held" else "requeued" if queue.requeues else "pending"
    reason = queue.reason or ("being submitted" if queue.phase == "submitting" else "")
    return RunState(kind, reason, requeues=queue.requeues, progress=_share(status))


def _unknown(seen: Seen, queue: SchedulerState, now: float) -> RunState:
    """What was last known of a run whose job cannot be asked for."""
    if seen.status is None:
        return RunState("unknown", queue.reason, requeues=queue.requeues)
    last = _by_heartbeat(seen.status, now, None)
    return RunState("unknown", queue.reason, last=last.kind, progress=last.progress, age=last.age)


def _living(
    status: Status | None, queue: SchedulerState | None, now: float, written: float | None, *, here: bool = True
) -> RunState:
    """A run that lives, by its newest heartbeat."""
    requeues = queue.requeues if queue is not None else 0
    if status is None or status.phase not in ALIVE:  # left by an earlier start
        return RunState("starting", requeues=requeues, here=here)
    state = replace(_by_heartbeat(status, now, written), requeues=requeues, here=here)
    return replace(state, eta=None) if state.kind == "no progress" else state


def _by_heartbeat(status: Status, now: float, written: float | None) -> RunState:
    """What a heartbeat says, taken at its word. written: when its file was, for clocks that differ."""
    age = _age(status, now)
    if status.phase not in ALIVE:
        ended: Kind = "failed" if status.phase == "failed" else "stopped"
        return RunState(ended, status.message, age=age, progress=_share(status))
    state = _getting_ahead(status, age)
    silent = silent_seconds(status, now, written)
    if silent is None:
        return state
    return replace(state, kind="no progress", message=state.message, silent=silent, last=state.kind)


def _getting_ahead(status: Status, age: float) -> RunState:
    if status.waiting:
        waits = waiting_text(status, since=age if age < STALE_SECONDS else 0.0)
        return RunState("waiting", waits, age=age, note=status.waiting_why)
    if status.phase == "starting":
        return RunState("starting", age=age)
    eta = _eta(status, age)
    if status.phase == "evaluating":
        return RunState("evaluating", progress=status.progress, eta=eta, age=age, health=status.health)
    return RunState(
        "running",
        ap=status.ap,
        progress=_share(status) or 0.0,
        eta=eta,
        age=age,
        seconds_per_iteration=status.seconds_per_iteration,
        images_per_second=status.images_per_second,
        data_share=status.data_share,
        device_busy=status.device_busy,
        note=status.note,
        health=status.health,
    )


def _share(status: Status | None) -> float | None:
    """Of the iterations, those that are done; None before the first."""
    return status.iteration / max(1, status.iterations) if status is not None and status.iteration else None


def silent_seconds(status: Status, now: float, written: float | None = None) -> float | None:
    """Seconds without getting ahead, where they are more than the run's own pace allows; else None.

    What the heartbeat says by itself is of one clock. What passed since then is not: the shorter of the times that the
    heartbeat and its file show counts, less what clocks may differ by. written: when the file was, by the disk's clock.
    """
    if status.silence <= 0 or status.progressed <= 0:
        return None
    said = max(0.0, status.time - status.progressed)
    since = max(0.0, now - max(status.time, written or status.time))
    certain = said + max(0.0, since - CLOCK_SECONDS)
    return said + since if certain >= status.silence else None


def _eta(status: Status, age: float) -> float | None:
    """Seconds to the end, with a guess for the evaluation; None where the pace is not known yet."""
    if status.seconds_per_iteration is None:
        return None
    whole = status.iterations * status.seconds_per_iteration / TRAINING_SHARE
    return max(0.0, whole * (1 - fraction_done(status)) - age)


def _without_queue(seen: Seen, now: float) -> RunState:
    """The state of a run that no queue speaks of."""
    status = seen.status
    if seen.leased:
        return _leased(seen, now)
    if not seen.started:
        return RunState("not started")
    if seen.broken:
        return RunState("failed", seen.broken, "record")
    if status is None:
        return _without_heartbeat(seen, now)
    return _ended(seen, status, None, now) or _silent(seen, status, now)


def _leased(seen: Seen, now: float) -> RunState:
    """The state of a run that a launcher of this machine has to do, and of which no process holds the lock yet."""
    status = seen.status
    if status is not None and status.phase in ALIVE and _age(status, now) < STALE_SECONDS:
        return _living(status, None, now, seen.written, here=False)
    since = max(status.time if status is not None else 0.0, now - FRESH_SECONDS)
    if seen.launched is not None and seen.launched > since:
        return RunState("starting", here=False)
    return RunState("waiting for its turn", progress=_share(status))


def _silent(seen: Seen, status: Status, now: float) -> RunState:
    """A heartbeat that says that the run lives, without a process here and without a queue."""
    age = _age(status, now)
    if age < STALE_SECONDS:
        return _living(status, None, now, seen.written, here=False)
    name = classify("", seen.tail)
    return RunState("lost?", failure=None if name == "unknown" else name, age=age)


def _ended(seen: Seen, status: Status, queue: SchedulerState | None, now: float) -> RunState | None:
    """How a run ended that says so itself, or of which another process does; None where none of them does."""
    age = _age(status, now)
    if status.phase == "failed":
        name = _class(status.message, seen.tail, queue)
        if name == "unknown" and status.pid == 0 and not status.iteration:  # noted for processes that had no word
            return RunState("died before start", last_word(seen.tail) or status.message, "died before start", age=age)
        return RunState("failed", status.message, name, age=age)
    if status.phase == "stopped":
        # Slurm's own signal for one who cancels; the batch script queues a job that is only preempted again.
        asked = seen.cancelled or (queue is not None and not queue.cause and status.left == "asked")
        return RunState("cancelled" if asked else "stopped", status.message, age=age)
    if status.phase == "done":  # evaluated with other test settings than these rows need
        return RunState("stopped", f"trained, {seen.evaluations}", age=age)
    if seen.other_rank:
        return RunState("failed", seen.other_rank, classify(seen.other_rank, seen.tail), age=age)
    return None


def _gone(seen: Seen, queue: SchedulerState, now: float) -> RunState:
    """The state of a run whose job has left the queue."""
    status = seen.status
    if status is not None and not _is_own(status, queue):  # left before this job, which had no word of its own
        status = None
    if seen.broken:
        return RunState("failed", seen.broken, "record")
    age = _age(status, now) if status is not None else None
    if queue.cause in ("cancelled", "preempted"):
        kind: Kind = "cancelled" if queue.cause == "cancelled" else "preempted"
        said = status.message if status is not None and status.phase == "stopped" else queue.reason
        return RunState(kind, said, age=age, requeues=queue.requeues, progress=_share(status))
    if status is None:
        return _without_heartbeat(seen, now)
    ended = _ended(seen, status, queue, now)
    if ended is not None:
        return ended
    if seen.cancelled:
        return RunState("cancelled", queue.reason, age=age, requeues=queue.requeues)
    name = _class(queue.reason, seen.tail, queue)
    if name == "unknown" and queue.cause != "failed":
        return RunState("lost", queue.reason, age=age, requeues=queue.requeues)
    return RunState("failed", queue.reason or last_word(seen.tail), name, age=age, requeues=queue.requeues)


def _without_heartbeat(seen: Seen, now: float) -> RunState:
    """The state of a run without a heartbeat: it has just been launched, or ended before its first one."""
    queue, said = seen.scheduler, last_word(seen.tail)
    if seen.cancelled:
        return RunState("cancelled", "before it started")
    name = _class(queue.reason if queue is not None else "", seen.tail, queue, started=False)
    if name != "unknown" or "Traceback (most recent call last)" in seen.tail:
        return RunState("failed", said or (queue.reason if queue is not None else ""), name)
    if queue is not None:
        if queue.exit_code:
            said = said or f"exit code {queue.exit_code}"
        if said or queue.cause == "failed":
            return RunState("died before start", said or queue.reason, "died before start")
        return RunState("lost", queue.reason)
    if seen.launched is None:
        return RunState("not started")
    age = max(0.0, now - seen.launched)
    return RunState("starting", here=False) if age < STALE_SECONDS else RunState("lost?", age=age)


def _class(message: str, tail: str, queue: SchedulerState | None, *, started: bool = True) -> FailureName:
    """The class of a failure by what was said and printed, and else by how its job ended."""
    name = classify(message, tail, exit_code=queue.exit_code if queue is not None else None, started=started)
    if queue is None or name not in ("unknown", "killed", "killed before start"):
        return name
    return _BY_CAUSE.get(queue.cause, name)


def _age(status: Status, now: float) -> float:
    return max(0.0, now - status.time)
