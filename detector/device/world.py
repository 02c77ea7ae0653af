"""The processes of one run, and the device of this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from detector.device.rendezvous import meet

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """Rank 0 is the main process: it alone writes files."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """The picklable ``value`` of every process, in the order of their ranks, on every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def from_main(self, value: T) -> T:
        """Rank 0's picklable ``value``, on every process; also waits for all of them."""
        values: list[T] = self.gather(value)
        return values[0]


def share_state(model: nn.Module, world: World) -> None:
    """Give all processes rank 0's weights and buffers."""
    if world.size > 1:
        for value in model.state_dict().values():
            dist.broadcast(value, src=0)


@contextmanager
def join_world(device_type: str, meeting: Path | None = None) -> Iterator[World]:
    """The process group that torch's environment variables describe (RANK, WORLD_SIZE, ...), or one process alone.

    meeting: the file through which they find each other (``detector.device.rendezvous``); None: by MASTER_ADDR and
    MASTER_PORT.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    device = torch.device("cpu")
    if device_type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if size == 1:
        yield World(0, 1, device)
        return
    store = None if meeting is None else meet(meeting, rank=rank, world_size=size)
    described: dict[str, Any] = {} if store is None else {"store": store, "rank": rank, "world_size": size}
    dist.init_process_group("nccl" if device_type == "cuda" else "gloo", **described)
    try:
        yield World(rank, size, device)
    finally:
        dist.destroy_process_group()
        if meeting is not None and rank == 0:
            meeting.unlink(missing_ok=True)
