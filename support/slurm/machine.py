"""Processes of this machine, whatever node of a cluster they count as: found by their environment, and killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

WORKER = "detector.worker"  # the module whose processes train under Slurm, as in their command line
LOCAL_WORKER = "submitit.core._submit"  # and without it


def living_processes() -> list[int]:
    """The processes of this machine, less zombies."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and state_of(int(path.name)) not in ("Z", "X", ""):
            found.append(int(path.name))
    return found


def state_of(pid: int) -> str:
    """The kernel's letter for its state; empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def parent_of(pid: int) -> int:
    """Its parent's id; 0 where the process is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def environment_of(pid: int) -> bytes:
    """Its variables, each ended by a zero byte; empty where the process is gone."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def command_of(pid: int) -> str:
    """Its command line; empty where the process is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def of_cluster(conf: str) -> list[int]:
    """The processes that know a cluster by its slurm.conf: jobs, commands and daemons."""
    mark = f"SLURM_CONF={conf}\0".encode()
    return [pid for pid in living_processes() if mark in environment_of(pid)]


def tasks(conf: str, rank: int, *, job: str = "") -> list[int]:
    """The Python processes of that rank, of all jobs or of one. job: its id as SLURM_JOB_ID has it."""
    wanted = [f"SLURM_PROCID={rank}\0".encode(), *([f"SLURM_JOB_ID={job}\0".encode()] if job else [])]
    return [
        pid
        for pid in of_cluster(conf)
        if all(mark in environment_of(pid) for mark in wanted) and is_worker(command_of(pid))
    ]


def is_worker(command: str) -> bool:
    """Whether a command line is that of a process that trains."""
    words = command.split()
    return WORKER in words and "python" in words[0]


def daemons(command: list[str]) -> list[int]:
    """The processes with exactly this command line."""
    wanted = " ".join(command)
    return [pid for pid in living_processes() if command_of(pid).strip() == wanted]


def node_processes(conf: str, node: str) -> list[int]:
    """All processes on a node but its slurmd: those of its jobs, and Slurm's own that supervise them."""
    wanted = f"SLURMD_NODENAME={node}\0".encode()
    found = [pid for pid in of_cluster(conf) if wanted in environment_of(pid)]
    parents = {parent_of(pid) for pid in found}
    return [*(pid for pid in parents if "slurmstepd" in command_of(pid)), *found]


def kill(pids: Iterable[int]) -> None:
    """Send SIGKILL to those that still live."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
