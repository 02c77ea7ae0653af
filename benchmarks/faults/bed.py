"""A real Slurm to disturb: two nodes on this machine, what trials read of its queue, and its daemons."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from benchmarks.faults.verdict import JobTimes
from support.slurm import machine
from support.slurm.cluster import idle_nodes, slurm_cluster, slurmctld_command, slurmd_command
from support.slurm.plan import NODES, ClusterPlan

# Slurm notices a lost node after five minutes of silence by default: too long for a trial.
PLAN = ClusterPlan(settings={"SlurmdTimeout": "10"})
CLUSTER = """\
name: two
title: two nodes without GPUs
partition: {partition}
nodes: 2
cpus_per_gpu: 1
memory_gb_per_gpu: 2
time_minutes: {minutes}
signal_delay_seconds: 30
start_minutes: {start}
"""
COMMENT = "harness-"  # how that of our jobs begins
LOOK_SECONDS = 0.3


@dataclass
class Bed:
    """One cluster, whose trials run one after the other."""

    folder: Path
    variables: dict[str, str]
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)
    command_seconds: float = 1.0  # what submitting takes
    first_job: int = 1  # of the trial under way
    looked: float = 0.0
    queue: dict[str, str] = field(default_factory=dict)

    def cluster_file(self, minutes: int, partition: str = "main", start: int = 30) -> Path:
        """Both nodes for each run, one process on each. start: minutes after which a start counts as hung."""
        path = self.folder / f"{partition}-{minutes}-{start}.yaml"
        path.write_text(CLUSTER.format(minutes=minutes, partition=partition, start=start))
        return path

    def call(self, *command: str) -> str:
        """What one of Slurm's programs prints, errors included: a refusal is part of a trial."""
        environment = {**os.environ, **self.variables}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
        return done.stdout + done.stderr

    def jobs(self) -> dict[str, str]:
        """State by id of all jobs that wait, run or end; asked a few times per second at most."""
        if time.monotonic() - self.looked > LOOK_SECONDS:
            lines = self.call("squeue", "-h", "-o", "%i|%T").splitlines()
            self.queue = dict(line.split("|") for line in lines if re.fullmatch(r"\d+\|[A-Z_]+", line))
            self.looked = time.monotonic()
        return self.queue

    def is_empty(self) -> bool:
        """Whether the queue is empty; False where squeue does not answer."""
        lines = self.call("squeue", "-h", "-o", "%i|%T")
        return not lines.strip()

    def show(self, job: str = "") -> list[dict[str, str]]:
        """What scontrol knows of one job, or of all."""
        lines = self.call("scontrol", "show", "job", "--oneliner", *([job] if job else [])).splitlines()
        return [dict(part.split("=", 1) for part in line.split() if "=" in part) for line in lines if "JobId=" in line]

    def restarts(self, job: str) -> int:
        """How often it was queued again."""
        return sum(int(shown["Restarts"]) for shown in self.show(job))

    def trained(self) -> list[dict[str, str]]:
        """The jobs of this trial that train."""
        ours = [item for item in self.show() if int(item["JobId"]) >= self.first_job]
        return [item for item in ours if item.get("Comment", "").startswith(COMMENT)]

    def times(self) -> list[JobTimes]:
        """When the jobs of this trial were in the queue."""
        jobs = self.trained()
        return [JobTimes(job["JobId"], _seconds(job["SubmitTime"]), _seconds(job["EndTime"])) for job in jobs]

    def tasks(self, rank: int) -> list[int]:
        """The processes of that rank."""
        return machine.tasks(self.variables["SLURM_CONF"], rank)

    def daemon(self, name: str) -> list[int]:
        """A node's slurmd, or slurmctld."""
        return machine.daemons(self._command(name))

    def node_processes(self, node: str) -> list[int]:
        """All processes on a node: those of its jobs, and Slurm's own that supervise them."""
        return machine.node_processes(self.variables["SLURM_CONF"], node)

    def start_daemon(self, name: str) -> None:
        """A node's slurmd, or slurmctld, again."""
        command = self._command(name)
        with open(self.folder / f"again-{name}.txt", "ab") as output:
            environment = {**os.environ, **self.variables}
            self.daemons.append(
                subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
            )

    def clear(self) -> None:
        """Make the cluster ready for the next trial. Raises TimeoutError where its nodes do not become idle."""
        end = time.monotonic() + 120
        for name in (*NODES, "slurmctld"):
            if not self.daemon(name):
                self.start_daemon(name)
        self.call("scancel", "--user", str(os.getuid()))
        while not self.is_empty() or self._idle() < len(NODES):
            if time.monotonic() > end:
                raise TimeoutError(f"Slurm did not recover:\n{self.call('sinfo')}{self.call('squeue')}")
            time.sleep(0.5)
        self.first_job = max((int(item["JobId"]) for item in self.show()), default=0) + 1

    def _command(self, name: str) -> list[str]:
        return slurmctld_command(self.folder) if name == "slurmctld" else slurmd_command(self.folder, name)

    def _idle(self) -> int:
        return idle_nodes({**os.environ, **self.variables})


@contextmanager
def slurm_bed(folder: Path) -> Iterator[Bed]:
    """Start a cluster in a folder with a short name, as paths of sockets must be short."""
    with slurm_cluster(folder, PLAN) as variables:
        bed = Bed(folder, variables)
        try:
            yield bed
        finally:
            for process in bed.daemons:
                process.terminate()
            for process in bed.daemons:
                process.wait(30)


def _seconds(text: str) -> float:
    """Seconds since the epoch of scontrol's local time; infinite where it is not known yet."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return float("inf")
