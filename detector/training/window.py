"""The time between two lines of a training's log: its mean losses and its seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from detector.device.world import World
from detector.errors import TrainingError


class Window:
    """Means of the losses since the last line of the log, kept on the device so that no step waits for them."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.sums: dict[str, torch.Tensor] = {}
        self.count = 0

    def add(self, losses: dict[str, torch.Tensor], *, images: int) -> None:
        """One iteration. losses: scalars on the device; images: of this process."""
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0) + value
        self.count += 1

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Around the wait for the next batch."""
        yield

    def close(self, world: World, iteration: int) -> tuple[dict[str, float], float]:
        """Means over the window and all processes, and seconds per iteration. Raises TrainingError where not finite."""
        values = torch.stack(list(self.sums.values())) / self.count
        if world.size > 1:
            dist.all_reduce(values)
            values /= world.size
        means = dict(zip(self.sums, values.tolist(), strict=True))
        seconds = self.clock.lap() / self.count
        if not all(math.isfinite(value) for value in means.values()):
            shown = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
            raise TrainingError(
                f"The loss is not finite in iterations {iteration + 2 - self.count} to {iteration + 1} ({shown}). "
                "Usual causes: a learning rate too high for the batch, fp16 overflow (try precision bf16 or fp32), "
                "a broken box. The last checkpoint before is kept; a lower rate is another run: --set optimizer.lr=..."
            )
        self.sums, self.count = {}, 0
        return means, seconds


class Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.since = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the start or the last lap."""
        before, self.since = self.since, time.perf_counter()
        return self.since - before
