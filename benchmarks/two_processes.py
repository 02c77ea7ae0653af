"""``harness`` as on a machine with two GPUs, on its CPU: the local launcher starts two processes a run.

python -m benchmarks.two_processes run table3/dr --profile tiny
"""

from __future__ import annotations

import os

from msgspec.structs import replace

import detector.worker
import harness.launch
from detector.worker import Assignment, Worker
from harness.cli import main


def worker_on_cpu(assignment: Assignment) -> Worker:
    """The worker that the launcher would send to GPUs, for the CPU."""
    return detector.worker.Worker(replace(assignment, device="cpu"))


if __name__ == "__main__":
    os.environ["CUDA_VISIBLE_DEVICES"] = "0,1"
    harness.launch.Worker = worker_on_cpu  # type: ignore[assignment,misc]
    main()
