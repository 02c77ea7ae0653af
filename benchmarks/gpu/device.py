"""The device that is measured, and how time is taken on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from benchmarks.measure import compare

COPY_BYTES, QUICK_COPY_BYTES = 2**30, 2**20


def device_of(*, quick: bool) -> torch.device:
    """The GPU; with ``quick`` a CPU will do. Raises SystemExit where there is neither."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if quick:
        torch.set_num_threads(1)  # threads that wait for each other on a busy machine take minutes
        return torch.device("cpu")
    raise SystemExit("no CUDA device: only --quick runs without one")


def name_of(device: torch.device) -> str:
    """As rows name it."""
    return torch.cuda.get_device_name() if device.type == "cuda" else "a CPU"


def wait_for(device: torch.device) -> Callable[[], object]:
    """Waits until the device has done its work."""
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


def steady(
    candidates: Mapping[str, Callable[[], object]], device: torch.device, *, rounds: int, repeats: int
) -> dict[str, float]:
    """Median seconds of each candidate where it follows itself, as in a training: launches and work overlap."""
    repeated = {name: partial(_repeat, work, repeats) for name, work in candidates.items()}
    found = compare(repeated, rounds=rounds, warmup=2, wait=wait_for(device))
    return {name: seconds / repeats for name, seconds in found.items()}


def _repeat(work: Callable[[], object], times: int) -> None:
    for _ in range(times):
        work()


def bytes_per_second(device: torch.device, *, quick: bool) -> float:
    """Bytes that a large copy reads and writes per second."""
    source = torch.zeros(QUICK_COPY_BYTES if quick else COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = steady({"copy": partial(target.copy_, source)}, device, rounds=3, repeats=1 if quick else 10)["copy"]
    return 2 * source.nbytes / seconds


def captured(work: Callable[[], object]) -> Callable[[], object]:
    """``work`` as a CUDA graph: the same kernels on the same tensors, launched at once."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = work()

    def replay(kept: Any = kept) -> None:  # what the graph writes into must live as long as it
        graph.replay()

    return replay


def peak_bytes(work: Callable[[], object], device: torch.device) -> int | None:
    """The most memory that ``work`` holds beyond what was held before; None on a CPU."""
    if device.type != "cuda":
        return None
    work()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def num_kernels(work: Callable[[], object], device: torch.device) -> int | None:
    """How many kernels ``work`` runs, copies and fills included; None on a CPU."""
    if device.type != "cuda":
        return None
    from torch.profiler import ProfilerActivity, profile

    work()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        work()
        torch.cuda.synchronize()
    events = trace.events() or []
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in events)
