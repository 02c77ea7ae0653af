"""A real Slurm on this machine: nodes, a controller, munge, accounts if wanted; all of their files in one folder."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from support.slurm.accounts import accounts_commands, declare, make_database
from support.slurm.errors import SlurmDidNotStart
from support.slurm.plan import ClusterPlan, write_configuration

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")
NEEDED_FOR_ACCOUNTS = ("slurmdbd", "sacctmgr", "sacct", "mariadbd", "mariadb", "mariadb-install-db")
START_SECONDS = 60


def missing_programs(*, accounts: bool = False) -> list[str]:
    """The programs of Slurm that are not installed here. accounts: those that accounts need besides, instead."""
    wanted = NEEDED_FOR_ACCOUNTS if accounts else NEEDED
    return [name for name in wanted if shutil.which(name, path=_path()) is None]


@contextmanager
def slurm_cluster(folder: Path, plan: ClusterPlan = ClusterPlan()) -> Iterator[dict[str, str]]:
    """Start it, wait until its nodes are idle, and end what was started. Yields the variables that commands need.

    folder: one with a short path, as paths of sockets must be short. Raises SlurmDidNotStart.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ports = write_configuration(folder, plan)
    environment = {**os.environ, "PATH": _path(), "SLURM_CONF": str(folder / "slurm.conf")}
    with ExitStack() as stack:
        daemons = _Daemons(folder, environment, stack)
        daemons.start(_munge_command(folder))
        daemons.wait_for(lambda: (folder / "munge.sock").exists(), "munge did not answer")
        if plan.accounts is not None:
            make_database(folder)
            for command, is_up in accounts_commands(folder, ports, environment):
                daemons.start(command)
                daemons.wait_for(is_up, f"{command[0]} did not answer")
            declare(plan, environment)
        daemons.start(slurmctld_command(folder))
        for node in plan.nodes:
            daemons.start(slurmd_command(folder, node))
        daemons.wait_for(lambda: idle_nodes(environment) == len(plan.nodes), "its nodes were not idle")
        stack.callback(_cancel_everything, environment)
        yield {"PATH": environment["PATH"], "SLURM_CONF": environment["SLURM_CONF"]}


def slurmctld_command(folder: Path) -> list[str]:
    """How the controller is started."""
    return ["slurmctld", "-D", "-f", str(folder / "slurm.conf")]


def slurmd_command(folder: Path, node: str) -> list[str]:
    """How the daemon of one node is started."""
    return ["slurmd", "-D", "-N", node, "-f", str(folder / "slurm.conf")]


def idle_nodes(environment: Mapping[str, str]) -> int:
    """How many nodes wait for work."""
    command = ["sinfo", "-h", "-N", "-t", "idle", "-o", "%N"]  # once for each partition
    listed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout
    return len(set(listed.split()))


def _munge_command(folder: Path) -> list[str]:
    command = ["munged", "--foreground", "--force", f"--socket={folder}/munge.sock", f"--key-file={folder}/munge.key"]
    return command + [f"--{name}-file={folder}/munge.{name}" for name in ("log", "pid", "seed")]


def _path() -> str:
    """The PATH with the folders of administrators, where the daemons are."""
    return f"{os.environ['PATH']}{os.pathsep}/usr/sbin{os.pathsep}/sbin"


def _cancel_everything(environment: Mapping[str, str]) -> None:
    whose = [] if os.geteuid() == 0 else ["--user", getpass.getuser()]
    for state in ("PENDING", "RUNNING", "SUSPENDED"):  # scancel wants a choice of some kind
        subprocess.run(["scancel", *whose, "--state", state], env=environment, check=False, capture_output=True)


class _Daemons:
    """The daemons of one cluster; they end in the opposite order when the stack is left."""

    def __init__(self, folder: Path, environment: Mapping[str, str], stack: ExitStack) -> None:
        self.folder, self.environment, self.stack = folder, environment, stack
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, command: list[str]) -> None:
        with open(self.folder / f"start-{len(self.started)}.txt", "wb") as output:
            process = subprocess.Popen(
                command, env=self.environment, stdout=output, stderr=output, start_new_session=True
            )
        self.stack.callback(_end, process)
        self.started.append(process)

    def wait_for(self, condition: Callable[[], bool], otherwise: str) -> None:
        """Raises SlurmDidNotStart where a daemon ends by itself, or the condition does not come true."""
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            ended = [number for number, daemon in enumerate(self.started) if daemon.poll() is not None]
            if ended or time.monotonic() > deadline:
                what = "a daemon ended by itself" if ended else f"{otherwise} after {START_SECONDS} s"
                raise SlurmDidNotStart(_what_went_wrong(self.folder, ended, what))
            time.sleep(0.1)


def _what_went_wrong(folder: Path, ended: list[int], what: str) -> str:
    """In one line, then at length. ended: the numbers of the daemons that ended by themselves."""
    texts = {path.name: path.read_text() for path in sorted([*folder.glob("*.txt"), *folder.glob("*.log")])}
    suspects = [texts[f"start-{number}.txt"] for number in ended] or list(texts.values())
    lines = [line for text in suspects for line in text.splitlines() if re.search("fatal|error", line, re.I)]
    worst = [line for line in lines if "fatal" in line.lower()] or lines
    said = "".join(f"\n{name}:\n{text[-2000:]}" for name, text in texts.items())
    return f"Slurm did not start: {'; '.join([what, *worst[-3:]])}{said}"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
