"""The window between two lines of the log: means over processes, where its time went, what it says of waiting."""

from __future__ import annotations

import logging

import pytest
import torch
import torch.distributed as dist

from detector.data.bottleneck import Supply
from detector.device.world import World
from detector.training import window as windows
from detector.training.window import Window
from support.micro import ALONE


class Clock:
    """A clock that only moves when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(windows.time, "perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def step(window: Window, clock: Clock, *, data: float, work: float, loss: float = 1.0) -> None:
    with window.waiting_for_data():
        clock.now += data
    clock.now += work
    window.add({"loss": torch.tensor(loss)}, images=16)


def test_close_tells_where_the_time_went(clock: Clock) -> None:
    window = Window()
    step(window, clock, data=0.25, work=1.0, loss=1.0)
    step(window, clock, data=0.5, work=2.25, loss=2.0)
    means, timing = window.close(ALONE, 1)
    assert means == {"loss": 1.5}
    assert (timing.iterations, timing.seconds, timing.data_seconds, timing.host_seconds) == (2, 4.0, 0.75, 3.25)
    assert timing.images_per_second == 8.0
    assert (timing.device_busy, timing.peak_memory_gib) == (None, None)
    step(window, clock, data=0.0, work=1.0)
    assert window.close(ALONE, 2)[1].data_seconds == 0.0  # of this window alone


def test_waiting_for_the_device_is_no_work_of_the_loop(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    window = Window()

    def wait() -> None:
        clock.now += 2.0

    window.load.is_gpu = True

    monkeypatch.setattr(window.load, "wait", wait)
    monkeypatch.setattr(window.load, "busy", lambda: 0.94)
    monkeypatch.setattr(window.load, "peak_gib", lambda: 6.9)
    monkeypatch.setattr(window.load, "sample", lambda: None)
    step(window, clock, data=0.25, work=0.75)
    with window.waiting_for_device():
        clock.now += 1.0
    timing = window.close(ALONE, 0)[1]
    assert (timing.seconds, timing.data_seconds, timing.host_seconds) == (4.0, 0.25, 0.75)
    assert (timing.device_busy, timing.peak_memory_gib) == (0.94, 6.9)


def test_of_several_processes_the_longest_wait_counts_in_one_collective(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def add_the_other(values: torch.Tensor) -> None:
        """As process 1 of 2: a loss of 3, 4 s, 3 s waiting for data, 1 s of work, GPU 50%, 4 images a second, 9 GiB."""
        nonlocal calls
        calls += 1
        values += torch.tensor([3.0, *[0.0] * 6, 4.0, 3.0, 1.0, 0.5, 4.0, 9.0])

    monkeypatch.setattr(dist, "all_reduce", add_the_other)
    window = Window()
    monkeypatch.setattr(window.load, "busy", lambda: 1.0)
    monkeypatch.setattr(window.load, "peak_gib", lambda: 6.0)
    step(window, clock, data=0.5, work=3.5, loss=1.0)
    means, timing = window.close(World(0, 2, torch.device("cpu")), 0)
    assert calls == 1
    assert means == {"loss": 2.0}
    assert (timing.seconds, timing.data_seconds, timing.host_seconds) == (4.0, 3.0, 3.5)
    assert (timing.device_busy, timing.images_per_second, timing.peak_memory_gib) == (0.75, 8.0, 9.0)


def waiting_windows(window: Window, clock: Clock, shares: list[float]) -> list[str]:
    """The notes after windows of 1 s with these shares of waiting."""
    notes = []
    for share in shares:
        step(window, clock, data=share, work=1 - share)
        window.close(ALONE, 0)
        notes.append(window.note)
    return notes


def test_a_training_that_waits_says_why_once_and_as_long_as_it_waits(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(windows, "supply_here", lambda workers, busy: Supply(workers, 16, 0.9, None))
    window = Window(workers=2)
    with caplog.at_level(logging.WARNING):
        notes = waiting_windows(window, clock, [0.9, 0.4, 0.4, 0.375, 0.5, 0.1, 0.5, 0.5, 0.5])
    assert [bool(note) for note in notes] == [False, False, False, True, True, False, True, True, True]
    (said,) = {note for note in notes if note}
    assert said.startswith("the training waits for data 38% of its time: its 2 loader workers are too few, of 16 cores")
    assert [record.getMessage() for record in caplog.records] == [said]


@pytest.mark.parametrize(
    ("workers", "shares"),
    [(2, [0.9, 0.5, 0.5, 0.1, 0.5, 0.5]), (2, [0.19] * 9), (0, [0.9] * 9)],
    ids=["never three in a row after the first", "little", "a CPU that prepares its images itself"],
)
def test_a_training_that_waits_little_says_nothing(
    clock: Clock, workers: int, shares: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    assert not any(waiting_windows(Window(workers=workers), clock, shares))
    assert not caplog.records
