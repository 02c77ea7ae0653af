"""Checks that need several processes: they read each other's files and connect as the processes of a run do."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from msgspec import Struct

from detector.storage.files import write_json
from detector.storage.reading import read_json
from detector.worker.processes import export_distributed, meeting_file, slurm_task
from harness.doctor.node_checks import Answer, error_text

NETWORK_ADVICE = "Where nodes have several networks, name the right one in 'setup': export {0}_SOCKET_IFNAME=..."
THREAD = "check"


class ProcessInfo(Struct, frozen=True):
    """What a process tells the others before they connect."""

    node: str
    has_cuda: bool


def exchange(
    folder: Path, kind: str, mine: ProcessInfo, *, rank: int, size: int, wait: float, strict: bool = True
) -> dict[int, ProcessInfo]:
    """Write a file for the other processes and read theirs.

    kind: the same name in all processes. wait: seconds at most. strict: raise TimeoutError if one is missing then.
    """
    write_json(folder / f"{kind}-{rank}.json", mine)
    paths = {other: folder / f"{kind}-{other}.json" for other in range(size)}
    end = time.monotonic() + wait
    while missing := [other for other, path in paths.items() if not path.exists()]:
        if time.monotonic() > end:
            if not strict:
                break
            raise TimeoutError(
                f"after {wait:.0f} s there was no file of rank {', '.join(map(str, missing))}: these processes did "
                "not get this far, or the folder is not the same on all nodes"
            )
        os.listdir(folder)  # or a network file system may go on for a while to say that a file is missing
        time.sleep(0.1)
    return {other: read_json(path, ProcessInfo) for other, path in paths.items() if other not in missing}


def sum_ranks(folder: Path, device: str, *, rank: int, size: int, nodes: int, wait: float) -> Answer:
    """Connect to the other processes as runs do and sum (rank + 1) over all. wait: seconds at most.

    This runs in a thread, because processes that do not find each other can block for half an hour.
    """
    task = slurm_task(folder)
    sums, errors = list[float](), list[BaseException]()
    backend = "NCCL" if device == "cuda" else "GLOO"

    def join() -> None:
        try:
            import torch
            import torch.distributed as dist

            from detector.device.world import join_world

            with join_world(device, meeting_file(folder, task)) as world:
                number = torch.full((1,), float(rank + 1), device=world.device)
                dist.all_reduce(number)
                sums.append(number.item())
        except BaseException as error:
            errors.append(error)

    export_distributed(under_slurm=task is not None)
    thread = threading.Thread(target=join, name=THREAD, daemon=True)
    thread.start()
    thread.join(wait)
    where = f"rank 0 is at {os.environ.get('MASTER_ADDR')}. {NETWORK_ADVICE.format(backend)}"
    if errors:
        return "fail", f"{error_text(errors[0])}; {where}"
    if thread.is_alive():
        return "fail", f"the {size} processes did not find each other ({backend.lower()}) in {wait:.0f} s; {where}"
    if sums != [size * (size + 1) / 2]:
        return "fail", f"the sum of 1 to {size} over the processes ({backend.lower()}) is {sums[0]:g}"
    across = f"{nodes} nodes" if nodes > 1 else "one node"
    return "ok", f"{size} on {across} found each other and summed their ranks ({backend.lower()})"


def exit_if_a_thread_hangs() -> None:
    """End the process at once if ``sum_ranks`` still waits in its thread, which would keep the job from ending."""
    if any(thread.name == THREAD for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
