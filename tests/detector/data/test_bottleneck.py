"""Why a training waits for its data, in words, by what is seen of its workers."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from detector.data import bottleneck
from detector.data.bottleneck import Supply, WorkerClock, advice, supply_here

ENOUGH = 2**33


@pytest.mark.parametrize(
    ("supply", "cause", "step"),
    [
        (
            Supply(0, 16, None, ENOUGH),
            "prepares its images itself, on one of 16 cores",
            "loader_workers in the profile",
        ),
        (Supply(0, 1, None, ENOUGH), "on the one core that it has", "more cores"),
        (Supply(4, 16, 0.9, 2**25), "/dev/shm, through which workers hand images over, has 32 MiB left", "--shm-size"),
        (Supply(4, 16, 0.2, ENOUGH), "compute only 20% of the time, so reading the files is slow", "local disk"),
        (Supply(1, 16, 0.9, ENOUGH), "its 1 loader worker are too few, of 16 cores", "(up to 15)"),
        (Supply(4, 16, None, None), "its 4 loader workers are too few", "raise execution.loader_workers"),
        (Supply(15, 16, 0.9, ENOUGH), "at work on all of 16 cores", "more cores per GPU"),
    ],
)
def test_advice_names_cause_and_next_step(supply: Supply, cause: str, step: str) -> None:
    text = advice(0.42, supply)
    assert text.startswith("the training waits for data 42% of its time: ")
    assert cause in text
    assert step in text


def test_worker_clock_is_the_share_of_the_time_since_the_lap_before(monkeypatch: pytest.MonkeyPatch) -> None:
    laps = iter([{1: 5.0, 2: 7.0}, {1: 6.0, 2: 7.5}, {1: 16.0, 3: 1.0}, {}])
    monkeypatch.setattr(bottleneck, "_seconds_on_cores", lambda: next(laps))
    clock = WorkerClock()
    assert clock.lap(2.0) is None  # nothing to compare with
    assert clock.lap(2.0) == pytest.approx(1.5 / 4)
    assert clock.lap(2.0) == 1.0  # of the one that is still there; more than all of it is all of it
    assert clock.lap(2.0) is None


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="only Linux tells")
def test_worker_clock_finds_the_processes_of_a_loader() -> None:
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    go = context.Event()
    process = context.Process(target=go.wait, daemon=True)
    process.start()
    assert process.pid in bottleneck._seconds_on_cores()
    go.set()
    process.join()
    assert process.pid not in bottleneck._seconds_on_cores()


def test_processes_of_one_machine_share_its_cores_unless_slurm_gave_each_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("LOCAL_WORLD_SIZE", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(bottleneck.os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    assert supply_here(2, None).cores == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert supply_here(2, None).cores == 2
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    assert supply_here(2, None).cores == 6


def test_free_shared_memory_is_what_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bottleneck.os, "statvfs", lambda path: SimpleNamespace(f_bavail=3, f_blocks=9, f_frsize=4096))
    assert supply_here(2, 0.5) == Supply(2, supply_here(2, 0.5).cores, 0.5, 3 * 4096)

    def nowhere(path: Path) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr(bottleneck.os, "statvfs", nowhere)
    assert supply_here(2, 0.5).free_shared_bytes is None
