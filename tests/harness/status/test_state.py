"""The state of a run, decided from what is seen of it."""

from __future__ import annotations

from typing import Any

import pytest

from detector.runs.status import Phase, Status
from harness.slurm.states import SchedulerState
from harness.status.kinds import FAILED, LIVING, STALE_SECONDS, RunState, Seen, is_idle
from harness.status.state import decide
from harness.status.words import NOTE_WIDTH, health_lines, state_text, timing_lines

NOW = 1_000_000.0


def beat(phase: Phase, *, age: float = 1.0, **values: Any) -> Status:
    return Status(phase=phase, time=NOW - age, pid=1, **{"iterations": 100, **values})


HALF = {"iteration": 50, "seconds_per_iteration": 0.92}
OLD = STALE_SECONDS + 1
GONE, RUNS = SchedulerState("gone"), SchedulerState("running")

CASES: list[tuple[Seen, str]] = [
    (Seen(started=False), "not started"),
    (Seen(started=False, recorded=True, ap=23.44), "done (AP 23.4)"),
    (Seen(recorded=True, ap=None), "done (AP -)"),
    (Seen(recorded=True, ap=23.44, evaluations="1 of 2 evaluations"), "done (AP 23.4; 1 of 2 evaluations)"),
    (Seen(), "not started"),  # an empty folder
    (Seen(launched=NOW - 3), "starting, just launched"),
    (Seen(launched=NOW - OLD), "lost? no word for 10:01, no process here; if it runs nowhere else: resumes"),
    (Seen(locked=True), "starting"),
    (Seen(locked=True, status=beat("starting")), "starting"),
    (Seen(locked=True, status=beat("failed", message="last week")), "starting"),
    # 50 of 100 iterations at 0.92 s, and the evaluation, 8 parts in 100 of the whole: 54 s less the second since then.
    (Seen(locked=True, status=beat("training", **HALF)), "running 50%, ETA 0:53"),
    (Seen(locked=True, status=beat("training", ap=12.34, **HALF)), "running 50%, ETA 0:53, AP so far 12.3"),
    (Seen(locked=True, status=beat("training", iteration=1)), "running 1%, ETA ?"),
    (
        Seen(locked=True, status=beat("training", age=OLD, **HALF)),
        "running 50%, ETA 0:00, but no word for",
    ),
    (Seen(locked=True, status=beat("evaluating", progress=0.4)), "evaluating 40%"),
    (
        Seen(locked=True, status=beat("training", waiting="writing final.pt", waiting_seconds=179.0, **HALF)),
        "waiting for disk: writing final.pt (3 min)",
    ),
    (
        Seen(status=beat("starting", waiting="reading 1.jpg", waiting_seconds=9.0)),
        "waiting for disk: reading 1.jpg (10 s), la",
    ),
    (Seen(status=beat("stopped", message="saved", waiting="reading 1.jpg")), "stopped (saved"),
    (Seen(status=beat("training", **HALF)), "running 50%, ETA 0:53, last word 0:01 ago, no process here"),
    (
        Seen(status=beat("training", age=OLD)),
        "lost? no word for 10:01, no process here; if it runs nowhere else: resumes",
    ),
    (
        Seen(status=beat("training", age=OLD), tail="oom-kill"),
        "lost? no word for 10:01, no process here (perhaps: host",
    ),
    (Seen(status=beat("stopped", message="saved")), "stopped (saved; resumes with the same command)"),
    (Seen(status=beat("done"), evaluations="0 of 1 evaluations"), "stopped (trained, 0 of 1 evaluations; resumes"),
    (Seen(status=beat("failed", message="OSError: [Errno 28] No space left")), "failed (unknown): OSError"),
    (Seen(status=beat("failed", message="No space left on device")), "failed (disk full): No space left on device"),
    (Seen(status=beat("training"), other_rank="NCCL error"), "failed (network): NCCL error"),
    (Seen(tail="x\nModuleNotFoundError: No module named 'a'\n"), "failed (import): ModuleNotFoundError: No module"),
    (Seen(tail="Traceback (most recent call last):\nKeyError: 1\n"), "failed (unknown): KeyError: 1"),
    (Seen(scheduler=SchedulerState("pending", "Priority")), "pending (Priority: other jobs come first)"),
    (Seen(started=False, scheduler=SchedulerState("pending")), "pending (no reason yet)"),
    (
        Seen(scheduler=SchedulerState("pending", "BeginTime", 2), status=beat("stopped")),
        "requeued 2x (BeginTime: its start time is not reached)",
    ),
    (
        Seen(scheduler=SchedulerState("running", requeues=2), status=beat("training", age=3, iteration=43)),
        "running 43%, ETA ?, requeued 2x",
    ),
    (Seen(scheduler=RUNS, status=beat("stopped")), "starting"),
    (Seen(scheduler=GONE, status=beat("training")), "lost: gone from the queue; resumes with the same command"),
    (Seen(scheduler=SchedulerState("gone", "NODE_FAIL"), status=beat("training")), "failed (node): NODE_FAIL"),
    (Seen(scheduler=SchedulerState("gone", "", 0, 137), status=beat("training")), "failed (killed): without a word"),
    (Seen(scheduler=SchedulerState("gone", "", 0, 140)), "failed (killed before start): without a word"),
    (Seen(scheduler=GONE, status=beat("stopped", message="saved")), "stopped (saved; resumes with the same command)"),
    (Seen(scheduler=GONE, recorded=True, ap=1.0), "done (AP 1.0)"),
]


@pytest.mark.parametrize(("seen", "expected"), CASES)
def test_decide_gives_the_state_of_what_was_seen(seen: Seen, expected: str) -> None:
    assert state_text(decide(seen, NOW)).startswith(expected)


def test_lost_without_a_scheduler_takes_ten_silent_minutes() -> None:
    silent = Seen(status=beat("training", age=STALE_SECONDS - 1))
    assert decide(silent, NOW).kind == "running"
    assert not decide(silent, NOW).here
    assert decide(silent, NOW + 1).kind == "lost?"
    assert "lost?" in FAILED


def test_a_long_message_is_one_line_cut() -> None:
    state = decide(Seen(status=beat("failed", message="a" * 200 + "\nb")), NOW)
    assert len(state_text(state)) < 120
    assert state.message.endswith("\nb")


def test_a_training_shows_where_its_time_goes_and_why_it_waits() -> None:
    values = {**HALF, "data_share": 0.305, "device_busy": 0.94, "images_per_second": 17.4, "note": "it waits " * 30}
    state = decide(Seen(locked=True, status=beat("training", **values)), NOW)
    timing, *note = timing_lines(state)
    assert timing == "0.920 s per iteration, data 30%, GPU 94%"
    assert " ".join(note) == "note: " + " ".join(["it waits"] * 30)
    assert max(map(len, note)) <= NOTE_WIDTH
    assert state.images_per_second == 17.4


@pytest.mark.parametrize("phase", ["starting", "evaluating", "stopped", "failed", "done"])
def test_no_other_state_shows_where_the_time_went(phase: Phase) -> None:
    assert timing_lines(decide(Seen(locked=True, status=beat(phase, note="it waits", **HALF)), NOW)) == []


@pytest.mark.parametrize("phase", ["training", "evaluating"])
def test_what_is_wrong_with_a_training_is_told_on_lines_of_its_own(phase: Phase) -> None:
    told = ("no learning: " + "the loss stays " * 20, "dead level: P7")
    lines = health_lines(decide(Seen(locked=True, status=beat(phase, health=told, **HALF)), NOW))
    assert " ".join(lines).split() == "health: {} health: {}".format(*told).split()
    assert max(map(len, lines)) <= NOTE_WIDTH
    assert health_lines(decide(Seen(recorded=True, ap=0.0, health=told), NOW)) == lines
    assert health_lines(decide(Seen(locked=True, status=beat(phase, **HALF)), NOW)) == []


def test_is_idle_only_without_anything_to_wait_for() -> None:
    assert is_idle([RunState("done"), RunState("failed"), RunState("lost?")])
    assert is_idle([RunState("not started"), RunState("stopped")])
    for kind in (*LIVING, "unknown"):
        assert not is_idle([RunState("done"), RunState(kind)])
