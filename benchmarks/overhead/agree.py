"""What it costs the processes of a run to agree at every step whether to stop: two of them, here, over gloo.

    python -m benchmarks.overhead.agree

Prints the median and the mean seconds of one call of ``detector.device.agreement.Agreement`` as seen by rank 0.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from statistics import fmean, median

CALLS = 2000


def two_processes() -> dict[str, float]:
    """Run this file as both ranks; returns what rank 0 measured."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.overhead.agree"],
            env={**os.environ, **meeting, "RANK": str(rank)},
            stdout=subprocess.PIPE,
        )
        for rank in (0, 1)
    ]
    printed = [rank.communicate()[0] for rank in ranks]
    assert all(rank.returncode == 0 for rank in ranks)
    found: dict[str, float] = json.loads(printed[0])
    return found


def one_rank() -> dict[str, float]:
    """Time many calls, one after the other."""
    import torch

    from detector.device.agreement import Agreement
    from detector.device.world import join_world

    torch.set_num_threads(1)
    seconds = []
    with join_world("cpu") as world:
        agree = Agreement(world)
        for _ in range(CALLS):
            since = time.perf_counter()
            agree(False)
            seconds.append(time.perf_counter() - since)
    return {"median": round(median(seconds), 7), "mean": round(fmean(seconds), 7)}


if __name__ == "__main__":
    print(json.dumps(one_rank() if "RANK" in os.environ else two_processes()))
