"""The time between two lines of a training's log: its mean losses, and where its time went."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from detector.data.bottleneck import WAIT_SHARE, WINDOWS, WorkerClock, advice, supply_here
from detector.device.load import DeviceLoad
from detector.device.world import World
from detector.errors import TrainingError
from detector.runs.timing import StepTiming

logger = logging.getLogger(__name__)
CPU = torch.device("cpu")
UNKNOWN = -1.0  # in place of None, between processes


class Window:
    """Means of the losses since the last line of the log, kept on the device so that no step waits for them.

    workers: of this process's loader.
    """

    def __init__(self, device: torch.device = CPU, *, workers: int = 0) -> None:
        self.clock = Clock()
        self.sums: dict[str, torch.Tensor] = {}
        self.count = self.images = 0
        self.data_seconds = self.device_seconds = 0.0
        self.load = DeviceLoad(device)
        self.watch = _DataWatch(workers, enabled=device.type == "cuda" or workers > 0)

    @property
    def note(self) -> str:
        """Why the training waits for its data, in words; empty where it does not."""
        return self.watch.note

    def add(self, losses: dict[str, torch.Tensor], *, images: int) -> None:
        """One iteration. losses: scalars on the device; images: of this process."""
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0) + value
        self.count += 1
        self.images += images
        self.load.sample()

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Around the wait for the next batch."""
        since = time.perf_counter()
        yield
        self.data_seconds += time.perf_counter() - since

    @contextmanager
    def waiting_for_device(self) -> Iterator[None]:
        """Around what waits for the device to catch up; on a CPU that is work of the loop like any other."""
        since = time.perf_counter()
        yield
        if self.load.is_gpu:
            self.device_seconds += time.perf_counter() - since

    def close(self, world: World, iteration: int) -> tuple[dict[str, float], StepTiming]:
        """Means over the window and all processes, and their timing; the same in each process.

        Here the training waits for its device. Raises TrainingError where a mean is not finite.
        """
        with self.waiting_for_device():
            self.load.wait()
        seconds = self.clock.lap()
        own = [
            seconds,
            self.data_seconds,
            max(0.0, seconds - self.data_seconds - self.device_seconds),
            _or_unknown(self.load.busy()),
            self.images / seconds,
            _or_unknown(self.load.peak_gib()),
        ]
        names = list(self.sums)
        means, processes = _exchange(torch.stack(list(self.sums.values())) / self.count, own, world)
        losses = dict(zip(names, means, strict=True))
        if not all(math.isfinite(value) for value in means):
            raise TrainingError(_not_finite(losses, iteration, self.count))
        timing = _over_processes(self.count, processes)
        if world.is_main:
            self.watch.look(timing, own_seconds=seconds)
        self.sums, self.count, self.images = {}, 0, 0
        self.data_seconds = self.device_seconds = 0.0
        return losses, timing


def _exchange(means: torch.Tensor, own: list[float], world: World) -> tuple[list[float], list[list[float]]]:
    """The means over all processes, and the numbers ``own`` of each process, in one collective."""
    if world.size == 1:
        return means.tolist(), [own]
    places = torch.zeros(world.size, len(own))
    places[world.rank] = torch.tensor(own)
    values = torch.cat([means, places.flatten().to(means)])
    dist.all_reduce(values)
    values[: len(means)] /= world.size
    numbers = values.tolist()
    rest = numbers[len(means) :]
    return numbers[: len(means)], [rest[i : i + len(own)] for i in range(0, len(rest), len(own))]


def _over_processes(iterations: int, processes: list[list[float]]) -> StepTiming:
    """See ``StepTiming`` for how each number is made of those of the processes."""
    seconds, data, host, busy, images, peaks = zip(*processes, strict=True)
    told = [share for share in busy if share != UNKNOWN]
    return StepTiming(
        iterations=iterations,
        seconds=max(seconds),
        data_seconds=max(data),
        host_seconds=max(host),
        images_per_second=sum(images),
        device_busy=sum(told) / len(told) if told else None,
        peak_memory_gib=None if UNKNOWN in peaks else max(peaks),
    )


def _or_unknown(value: float | None) -> float:
    return UNKNOWN if value is None else value


def _not_finite(losses: dict[str, float], iteration: int, count: int) -> str:
    shown = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
    return (
        f"The loss is not finite in iterations {iteration + 2 - count} to {iteration + 1} ({shown}). "
        "Usual causes: a learning rate too high for the batch, fp16 overflow (try precision bf16 or fp32), "
        "a broken box. The last checkpoint before is kept; a lower rate is another run: --set optimizer.lr=..."
    )


class _DataWatch:
    """Says once per start why the training waits for its data, where several windows in a row show that it does.

    By what the main process sees of its own workers. On a CPU without workers nothing waits: the loop prepares its
    images itself, on the cores that it trains on.
    """

    def __init__(self, workers: int, *, enabled: bool) -> None:
        self.workers, self.enabled = workers, enabled
        self._clock = WorkerClock()
        self._said = ""
        self._in_a_row = -1  # the first window fills the loader

    @property
    def note(self) -> str:
        """As long as it waits."""
        return self._said if self._in_a_row > 0 else ""

    def look(self, timing: StepTiming, *, own_seconds: float) -> None:
        """The next window. own_seconds: of this process."""
        if not self.enabled:
            return
        busy = self._clock.lap(own_seconds)
        waits = timing.data_share > WAIT_SHARE and self._in_a_row >= 0
        self._in_a_row = self._in_a_row + 1 if waits else 0
        if self._in_a_row == WINDOWS and not self._said:
            self._said = advice(timing.data_share, supply_here(self.workers, busy))
            logger.warning("%s", self._said)


class Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.since = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the start or the last lap."""
        before, self.since = self.since, time.perf_counter()
        return self.since - before
