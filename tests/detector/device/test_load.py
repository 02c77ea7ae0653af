"""NVML's samples of a GPU, by a stand-in for torch's question."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from detector.device import load
from detector.device.load import DeviceLoad

GPU = torch.device("cuda", 0)


class Clock:
    """A clock that only moves when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(load.time, "perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def answering(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], int]) -> None:
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: answer())


def test_busy_is_the_mean_of_the_samples_since_the_last_look(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    answers = iter([0, 80, 100, 40])  # the first starts NVML
    answering(monkeypatch, lambda: next(answers))
    gpu = DeviceLoad(GPU)
    gpu.sample()
    gpu.sample()
    assert gpu.busy() == pytest.approx(0.9)
    gpu.sample()
    assert gpu.busy() == pytest.approx(0.4)
    assert gpu.busy() == pytest.approx(0.4)  # no sample since: the latest


def test_asking_takes_a_thousandth_of_the_time(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    asked = 0

    def slow() -> int:
        nonlocal asked
        asked += 1
        clock.now += 0.001
        return 50

    answering(monkeypatch, slow)
    gpu = DeviceLoad(GPU)
    asked = 0
    for _ in range(100):  # 5 s of steps of 50 ms
        gpu.sample()
        clock.now += 0.05
    assert asked == 5


def test_where_nothing_answers_once_nothing_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def refuse() -> int:
        nonlocal asked
        asked += 1
        raise ModuleNotFoundError("nvidia-ml-py")

    answering(monkeypatch, refuse)
    gpu = DeviceLoad(GPU)
    gpu.sample()
    gpu.sample()
    assert gpu.busy() is None
    assert asked == 1


def test_a_cpu_has_no_load(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, lambda: pytest.fail("asked"))
    cpu = DeviceLoad(torch.device("cpu"))
    cpu.sample()
    cpu.wait()
    assert (cpu.busy(), cpu.peak_gib()) == (None, None)


@pytest.mark.gpu
def test_a_gpu_tells_its_peak_since_the_last_look() -> None:
    gpu = DeviceLoad(torch.device("cuda", torch.cuda.current_device()))
    gpu.peak_gib()
    before = torch.cuda.memory_allocated()
    large = torch.empty(2**28, device="cuda")  # 1 GiB
    del large
    gpu.wait()
    assert gpu.peak_gib() == pytest.approx(before / 2**30 + 1, abs=0.01)
    assert gpu.peak_gib() == pytest.approx(before / 2**30, abs=0.01)
    gpu.sample()
    busy = gpu.busy()
    assert busy is None or 0 <= busy <= 1
