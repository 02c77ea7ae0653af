"""How long a run may be silent: no healthy one is called hung, and a hung one soon is."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from detector.data.workers.loop import GIVEN_UP_SECONDS
from detector.device.rendezvous import WAIT_SECONDS
from detector.errors import UsageError
from detector.runs.folder import RunDir
from detector.runs.status import Phase, Status
from detector.storage import retry
from detector.worker import silence as module
from detector.worker.reports import Heartbeat
from detector.worker.silence import OWN_LIMITS_SECONDS, Pulse, silence

MINUTE = 60.0


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_SILENCE_SECONDS", raising=False)


# By name: the images of an evaluation, and the seconds between the times that a healthy run got ahead, by phase.
Steps = list[tuple[Phase, float]]
HEALTHY: dict[str, tuple[int, Steps]] = {
    "a tiny run on a CPU": (0, [("starting", 4.0), *[("training", 0.4)] * 60, ("evaluating", 2.0)]),
    "a first start over a slow file server": (0, [("starting", 30 * MINUTE), *[("training", 5.0)] * 20]),
    "each new shape is compiled first": (
        0,
        [
            ("starting", 12 * MINUTE),
            *[("training", 20 * MINUTE), ("training", 15 * MINUTE), ("training", 10 * MINUTE)],
            *[("training", 6.0)] * 200,
            ("training", 5 * MINUTE),
        ],
    ),
    "every window waits for a file server that comes back": (
        0,
        [("training", 5.0)] * 30 + [("training", 2 * retry.RETRY_SECONDS)] * 3,
    ),
    "a slow machine that becomes slower": (
        0,
        [("starting", 5 * MINUTE), *[("training", 5 * MINUTE)] * 5, *[("training", 40 * MINUTE)] * 5],
    ),
    "COCO's minival while it trains": (
        5000,
        [*[("training", 5.0)] * 20, *[("training", 0.05)] * 5000, ("training", 5 * MINUTE), ("training", 5.0)],
    ),
    "COCO's minival on one core": (5000, [("evaluating", 8.0)] * 100 + [("evaluating", 10 * MINUTE)]),
    "a hundred thousand images": (100_000, [("evaluating", 0.05)] * 100 + [("evaluating", 90 * MINUTE)]),
    "nine scales on a CPU": (20, [("evaluating", 3 * MINUTE), ("evaluating", 9 * MINUTE), ("evaluating", 4 * MINUTE)]),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_is_never_called_hung(name: str) -> None:
    images, steps = HEALTHY[name]
    pulse, now = Pulse(), 1000.0
    pulse.images = images
    for number, (phase, seconds) in enumerate(steps):
        assert seconds < pulse.silence(), number
        now += seconds
        pulse.ahead(phase, now)


def test_a_hung_training_at_a_usual_pace_is_seen_in_twelve_minutes() -> None:
    assert silence("training", [5.0] * 30) <= 12 * MINUTE
    assert silence("training", [90.0] + [5.0] * 20) <= 12 * MINUTE  # one slow step is forgotten


def test_waits_that_end_by_themselves_end_first() -> None:
    assert silence("training", [0.1] * 9) > max(retry.RETRY_SECONDS, GIVEN_UP_SECONDS)
    assert silence("starting", []) > WAIT_SECONDS


@pytest.mark.parametrize("phase", ["done", "stopped", "failed"])
def test_the_processes_of_a_run_that_has_ended_may_live_for_some_minutes(
    phase: Phase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_SILENCE_SECONDS", "soon")  # and its end can be told
    assert silence(phase, [5.0] * 9) == module.END_SECONDS
    assert Pulse().ahead(phase, 1.0) == module.END_SECONDS


def test_the_least_silence_is_set_by_a_variable_and_the_pace_still_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_SILENCE_SECONDS", "20")
    pulse = Pulse()
    assert [pulse.ahead("training", now) for now in (0.0, 2.0, 4.0)] == [20.0, 40.0, 40.0]
    monkeypatch.setenv("HARNESS_SILENCE_SECONDS", "-1")
    with pytest.raises(UsageError, match=r"^HARNESS_SILENCE_SECONDS is '-1'; a number of seconds above 0 is needed\.$"):
        pulse.silence()


def test_a_heartbeat_says_when_the_run_last_got_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(100)
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    run = RunDir(tmp_path)
    heartbeat = Heartbeat(run.status, 8)

    def after(phase: Phase, *, ahead: bool = False, **values: object) -> Status:
        heartbeat.beat(phase, force=True, ahead=ahead, **values)
        status = run.read_status()
        assert status is not None
        return status

    assert after("starting").silence == module.START_SECONDS
    same = after("starting", waiting="a file", waiting_seconds=3.0)
    assert 0 < same.progressed < same.time - 1
    seen = [
        after("training", iteration=1),
        after("training", iteration=1, loss=0.5),  # not ahead
        after("training", iteration=2),
        after("training", ahead=True),  # an image of an evaluation
        after("evaluating", progress=0.0),
        after("evaluating", progress=0.5),
        after("done"),
    ]
    times = [status.progressed for status in seen]
    assert times[0] == times[1]
    assert times[1:] == sorted(set(times[1:]))
    assert seen[-1].silence == module.END_SECONDS
    with heartbeat.evaluating(1000):
        assert after("evaluating", progress=0.1).silence == pytest.approx(OWN_LIMITS_SECONDS + 100, abs=1)
    assert after("evaluating", progress=0.2).silence == pytest.approx(OWN_LIMITS_SECONDS, abs=1)


HUNG = """
import ctypes, sys
from detector.worker.__main__ import main
import detector.worker.worker as worker
def held(self):
    sys.stdout.write("held"); sys.stdout.flush()
    ctypes.PyDLL(None).sleep(60)  # and keeps Python's lock
worker.Worker.__call__ = held
main(sys.argv[1:])
"""


def test_a_process_that_holds_pythons_lock_prints_where_it_is(tmp_path: Path) -> None:
    from detector.worker.missing_loss import encode
    from support.micro import micro_assignment, micro_job, write_experiments

    file = tmp_path / "task-0.json"
    file.write_bytes(encode(micro_assignment(micro_job(write_experiments(tmp_path / "e")), tmp_path / "run", tmp_path)))
    command = [sys.executable, "-c", HUNG, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(4) == b"held"
        process.send_signal(signal.SIGQUIT)
        lines = []
        while not lines or b"in <module>" not in lines[-1]:
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        process.kill()
    assert any(b"in held" in line for line in lines)
