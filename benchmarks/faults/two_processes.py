"""``harness`` as on a machine with two GPUs, on its CPU: the local launcher starts two processes per run.

python -m benchmarks.faults.two_processes run table3/dr --profile tiny
"""

from __future__ import annotations

import os

from msgspec.structs import replace

import harness.launch.local
from detector.runs.assignment import Assignment
from detector.worker.worker import Worker
from harness.cli import main


def worker_on_cpu(assignment: Assignment) -> Worker:
    """The worker that the launcher would start on GPUs, on the CPU instead."""
    return Worker(replace(assignment, device="cpu"))


if __name__ == "__main__":
    os.environ["CUDA_VISIBLE_DEVICES"] = "0,1"
    harness.launch.local.Worker = worker_on_cpu  # type: ignore[assignment,misc]
    main()
