"""Several processes of one run, as a launcher starts them, on this machine."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from detector.runs.assignment import Assignment
from detector.runs.folder import RunDir

WAIT_SECONDS = 120
# As submitit's task does: the environment tells torch about the processes.
TASK = "import pickle, sys; from detector.worker.worker import Worker; Worker(pickle.load(open(sys.argv[1], 'rb')))()"


def run_processes(
    assignment: Assignment, count: int, meanwhile: Callable[[list[subprocess.Popen[bytes]]], None] = lambda _: None
) -> list[int]:
    """Run the assignment in ``count`` processes to their end; returns their exit codes."""
    folder = Path(assignment.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "assignment.pkl").write_bytes(pickle.dumps(assignment))
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
    started: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(count):
            environment = {**os.environ, **shared, "RANK": str(rank), "OMP_NUM_THREADS": "1"}
            with open(folder / f"output-{rank}.txt", "wb") as output:
                command = [sys.executable, "-c", TASK, str(folder / "assignment.pkl")]
                started.append(subprocess.Popen(command, env=environment, stdout=output, stderr=output))
        meanwhile(started)
        return [process.wait(WAIT_SECONDS) for process in started]
    finally:
        for process in started:
            process.kill()


def free_port() -> int:
    """A free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def outputs(run: RunDir) -> str:
    """What the processes printed, for the message of a failed check."""
    return "\n".join(path.read_text() for path in sorted(run.root.glob("output-*.txt")))
