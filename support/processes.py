"""Several processes of one run, as a launcher or Slurm starts them, on this machine."""

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
from detector.worker.missing_loss import encode

WAIT_SECONDS = 120
# As submitit's task does: the environment tells torch about the processes.
TASK = "import pickle, sys; from detector.worker.worker import Worker; Worker(pickle.load(open(sys.argv[1], 'rb')))()"


Meanwhile = Callable[[list[subprocess.Popen[bytes]]], None]


def run_processes(assignment: Assignment, count: int, meanwhile: Meanwhile = lambda _: None) -> list[int]:
    """Run the assignment in ``count`` processes to their end; returns their exit codes."""
    folder = Path(assignment.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "assignment.pkl").write_bytes(pickle.dumps(assignment))
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
    command = ["-c", TASK, str(folder / "assignment.pkl")]
    return _run([(command, {**shared, "RANK": str(rank)}) for rank in range(count)], folder, meanwhile)


def run_tasks(
    assignment: Assignment, count: int, meanwhile: Meanwhile = lambda _: None, *, restarts: int = 0
) -> list[int]:
    """As ``run_processes``, with what srun says to the tasks of the job 40_1; restarts: its starts before this one."""
    folder = Path(assignment.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder.with_name(f"{folder.name}-submission") / "task-1.json"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(encode(assignment))
    job = {"SLURM_JOB_ID": "41", "SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "1"}
    shared = {**job, "SLURM_RESTART_COUNT": str(restarts), "SLURM_NTASKS": str(count), "SLURM_NNODES": "1"}
    command = ["-u", "-m", "detector.worker", str(file)]
    each = [{**shared, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(count)]
    return _run([(command, variables) for variables in each], folder, meanwhile)


def _run(commands: list[tuple[list[str], dict[str, str]]], folder: Path, meanwhile: Meanwhile) -> list[int]:
    """Run Python once for each of the commands, in the order of their ranks."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        for rank, (arguments, variables) in enumerate(commands):
            environment = {**os.environ, **variables, "OMP_NUM_THREADS": "1"}
            with open(folder / f"output-{rank}.txt", "wb") as output:
                command = [sys.executable, *arguments]
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
