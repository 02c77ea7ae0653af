"""What a state says: of runs that wait, hang, died before they began, were cancelled or are not known."""

from __future__ import annotations

from typing import Any

import pytest

from detector.runs.status import Phase, Status
from harness.slurm.states import SchedulerState
from harness.status.kinds import STALE_SECONDS, Kind, RunState, Seen
from harness.status.reasons import REASONS, reason_text
from harness.status.state import decide
from harness.status.words import state_text, timing_lines

NOW = 1_000_000.0


def beat(phase: Phase, *, age: float = 1.0, **values: Any) -> Status:
    return Status(phase=phase, time=NOW - age, pid=1, **{"iterations": 100, **values})


HALF = {"iteration": 50, "seconds_per_iteration": 0.92}
OLD = STALE_SECONDS + 1
GONE, RUNS = SchedulerState("gone"), SchedulerState("running")
ENDED = SchedulerState("gone", "FAILED", exit_code=1, cause="failed")

CASES: list[tuple[Seen, str]] = [
    (
        Seen(scheduler=SchedulerState("pending", "Priority", 1), status=beat("stopped", **HALF)),
        "requeued 1x at 50% (Pr",
    ),
    (
        Seen(scheduler=SchedulerState("held", "JobHeldAdmin", job="17_3", user="eve")),
        "held (JobHeldAdmin: held by an administrator; scontrol release 17_3), by eve",
    ),
    (
        Seen(scheduler=SchedulerState("pending", "Priority", seen=NOW - 720)),
        "pending (Priority: other jobs come first), as of 12:00 ago",
    ),
    (Seen(scheduler=SchedulerState("pending", "Priority", seen=NOW - 20)), "pending (Priority: other jobs come first)"),
    (
        Seen(scheduler=SchedulerState("unknown", "squeue failed"), status=beat("training", age=OLD, **HALF)),
        "unknown (last: running 50%, 10:01 ago; squeue failed)",
    ),
    (Seen(started=False, scheduler=SchedulerState("unknown")), "unknown (its queue does not answer)"),
    (Seen(scheduler=SchedulerState("refused", "Invalid qos", seen=NOW - 900)), "refused: Invalid qos"),
    (Seen(status=beat("stopped", message="saved"), cancelled=True), "cancelled (saved; resumes with the same command)"),
    (Seen(scheduler=GONE, cancelled=True), "cancelled (before it started; resumes with the same command)"),
    (Seen(started=False, leased=True), "waiting for its turn"),
    (Seen(status=beat("stopped", **HALF), leased=True, launched=NOW - 900), "waiting for its turn 50%"),
    (Seen(status=beat("stopped", age=9, **HALF), leased=True, launched=NOW - 3), "starting"),
    (Seen(leased=True, launched=NOW - 3), "starting, just launched"),
    (
        Seen(leased=True, status=beat("training", **HALF)),
        "running 50%, ETA 0:53, last word 0:01 ago, no process here",
    ),
    (
        Seen(scheduler=ENDED, tail="harness: start 0\nbash: apptainer: not found\n"),
        "died before start: bash: apptainer:",
    ),
    (Seen(scheduler=ENDED, tail="srun: error: n1: task 0: Exited\n"), "died before start: srun: error: n1: task 0: Ex"),
    (Seen(scheduler=ENDED), "died before start: exit code 1"),
    (
        Seen(
            scheduler=ENDED,
            status=Status(phase="failed", time=NOW, pid=0, message="exit code 127: srun: error: n1"),
            tail="apptainer: command not found\nsrun: error: n1: task 0: Exited with exit code 127\n",
        ),
        "died before start: apptainer: command not found",
    ),
    (
        Seen(scheduler=ENDED, status=Status(phase="failed", time=NOW, pid=0, message="exit code 1: ImportError: no")),
        "failed (import): exit code 1: ImportError: no",
    ),
    (Seen(scheduler=ENDED, tail="ImportError: no\n"), "failed (import): ImportError: no"),
    (Seen(scheduler=ENDED, status=beat("training")), "failed (unknown): FAILED"),
    (
        Seen(scheduler=SchedulerState("gone", "OUT_OF_MEMORY", exit_code=253, cause="memory"), status=beat("training")),
        "failed (host memory): OUT_OF_MEMORY",
    ),
    (
        Seen(scheduler=SchedulerState("gone", "", exit_code=137, cause="memory"), status=beat("training")),
        "failed (host memory): without a word",
    ),
    (Seen(status=beat("failed", message="no progress for 12 min")), "failed (no progress): no progress for 12 min"),
]
HUNG: dict[str, Any] = {"silence": 600.0, **HALF}
HANGS: list[tuple[Seen, str]] = [
    # Another rank hangs: the heartbeat goes on. Its own two times are of one clock.
    (Seen(locked=True, status=beat("training", progressed=NOW - 721, **HUNG)), "no progress for 12 min at 50%"),
    (Seen(scheduler=RUNS, status=beat("training", progressed=NOW - 721, **HUNG)), "no progress for 12 min at 50%"),
    (Seen(locked=True, status=beat("training", progressed=NOW - 500, **HUNG)), "running 50%"),
    # Rank 0 itself hangs: the heartbeat is as old as the last step, less what clocks may differ by.
    (Seen(scheduler=RUNS, status=beat("training", age=640, progressed=NOW - 641, **HUNG)), "no progress for 11 min at"),
    (Seen(scheduler=RUNS, status=beat("training", age=620, progressed=NOW - 621, **HUNG)), "running 50%"),
    # A node whose clock is an hour slow: its file was written a moment ago.
    (
        Seen(scheduler=RUNS, status=beat("training", age=3600, progressed=NOW - 3601, **HUNG), written=NOW - 2),
        "running 50%",
    ),
    # A node whose clock is an hour fast.
    (Seen(scheduler=RUNS, status=beat("training", age=-3600, progressed=NOW + 3599, **HUNG)), "running 50%"),
    (Seen(locked=True, status=beat("starting", progressed=NOW - 2000, silence=1800.0)), "no progress for 33 min since"),
    (
        Seen(locked=True, status=beat("evaluating", progress=0.4, progressed=NOW - 7300, silence=600.0)),
        "no progress for 2 h, evaluating 40%",
    ),
    (
        Seen(locked=True, status=beat("training", progressed=NOW - 721, waiting="reading 1.jpg", **HUNG)),
        "no progress for 12 min, waiting for disk: reading 1.jpg",
    ),
    (Seen(locked=True, status=beat("training", progressed=NOW - 721, **HALF)), "running 50%"),  # an older heartbeat
    (Seen(status=beat("training", progressed=NOW - 721, **HUNG)), "no progress for 12 min at 50%, last word 0:01 ago"),
    (Seen(scheduler=GONE, status=beat("training", progressed=NOW - 721, **HUNG)), "lost: gone from the queue"),
]


@pytest.mark.parametrize(("seen", "expected"), [*CASES, *HANGS])
def test_a_state_says_what_was_seen(seen: Seen, expected: str) -> None:
    assert state_text(decide(seen, NOW)).startswith(expected)


@pytest.mark.parametrize("age", [20.0, None])
def test_an_answer_of_the_queue_that_is_new_has_no_age(age: float | None) -> None:
    queue = SchedulerState("pending", "Priority", seen=None if age is None else NOW - age)
    assert state_text(decide(Seen(scheduler=queue), NOW)).endswith("come first)")


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("QOSMaxJobsPerUserLimit", "the QOS's limit on jobs is reached"),
        ("AssocGrpGRES", "the account's limit on GPUs is reached"),
        ("AssocGrpCpuRunMinutesLimit", "the account's limit on use is reached"),
        ("QOSMaxNodePerJobLimit", "the QOS's limit on one job's nodes: it never starts"),
        ("MaxGRESPerAccount", "the site's limit on GPUs is reached"),
        ("QOSUsageThreshold", "the QOS's share of the cluster is used up"),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-3]", "a node that it needs is down or reserved"),
        ("(Nodes_required_for_job_are_DOWN,_DRAINED_or_reserved)", "nodes that it needs are down or reserved"),
        ("(launch failed requeued held)", "held: it could not be launched"),
        *REASONS.items(),
    ],
)
def test_slurms_reason_is_kept_and_said_in_words(reason: str, words: str) -> None:
    assert reason_text(reason) == f"{reason}: {words}"


@pytest.mark.parametrize(("reason", "text"), [("SomethingNew", "SomethingNew"), ("None", "no reason yet")])
def test_a_reason_that_is_not_known_is_shown_as_it_is(reason: str, text: str) -> None:
    assert state_text(RunState("pending", reason)) == f"pending ({text})"


def test_a_run_without_progress_shows_no_end_and_no_pace() -> None:
    state = decide(Seen(locked=True, status=beat("training", progressed=NOW - 721, **HUNG)), NOW)
    assert (state.eta, state.silent, state.progress, state.last) == (None, 721.0, 0.5, "running")
    assert timing_lines(state) == []


@pytest.mark.parametrize("kind", ["running", "evaluating", "no progress", "requeued", "waiting for its turn"])
def test_no_line_hides_how_far_a_run_is_within_eighty_columns(kind: Kind) -> None:
    state = RunState(kind, "Priority", progress=0.43, eta=9000.0, ap=31.2, age=1.0, silent=720.0, last="running")
    room = 80 - len("table2/L6  seed 0  0123456789abcdef  ")
    assert "43%" in state_text(state)[:room]
    assert kind != "running" or "ETA 2:30:00" in state_text(state)[:room]
