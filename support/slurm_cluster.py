"""A real Slurm on this machine: two nodes, a controller and munge, all of their files in one folder."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")
NODES = ("n1", "n2")
START_SECONDS = 60

# A requeued job waits until its old credential has expired (two minutes by default), and a killed one for KillWait.
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
KillWait=10
MinJobAge=300
SchedulerParameters=sched_interval=2,sched_min_interval=0
GresTypes=gpu
{nodes}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes={names} Default=YES PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes={names} PriorityTier=10 PreemptMode=OFF
"""


class SlurmDidNotStart(Exception):
    """Slurm did not start. The first line of the message says why; the rest is what the daemons printed."""


def missing_programs() -> list[str]:
    """The programs of Slurm that are not installed here."""
    return [name for name in NEEDED if shutil.which(name, path=_path()) is None]


@contextmanager
def slurm_cluster(folder: Path, *, settings: str = "") -> Iterator[dict[str, str]]:
    """Start it, wait until both nodes are idle, and end what was started. Yields the variables that commands need.

    settings: further lines of slurm.conf. Any user may start it; its jobs are then that user's. Raises
    SlurmDidNotStart.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_config(folder, settings)
    environment = {**os.environ, "PATH": _path(), "SLURM_CONF": str(folder / "slurm.conf")}
    munge = ["munged", "--foreground", "--force", f"--socket={folder}/munge.sock", f"--key-file={folder}/munge.key"]
    munge += [f"--{name}-file={folder}/munge.{name}" for name in ("log", "pid", "seed")]
    commands = [munge, ["slurmctld", "-D", "-f", str(folder / "slurm.conf")]]
    commands += [slurmd_command(folder, node) for node in NODES]
    with ExitStack() as stack:
        daemons: list[subprocess.Popen[bytes]] = []
        for number, command in enumerate(commands):
            output = stack.enter_context(open(folder / f"start-{number}.txt", "wb"))
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
            stack.callback(_end, process)
            daemons.append(process)
            if number == 0:
                _wait_for(lambda: (folder / "munge.sock").exists(), folder, daemons)
        _wait_for(lambda: _idle_nodes(environment) == len(NODES), folder, daemons)
        stack.callback(subprocess.run, ["scancel", "--user", getpass.getuser()], env=environment, check=False)
        yield {"PATH": environment["PATH"], "SLURM_CONF": environment["SLURM_CONF"]}


def slurmd_command(folder: Path, node: str) -> list[str]:
    """How the daemon of one node is started."""
    return ["slurmd", "-D", "-N", node, "-f", str(folder / "slurm.conf")]


def _write_config(folder: Path, settings: str) -> None:
    for name in ("state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    for gpu in range(4):
        (folder / f"gpu{gpu}").symlink_to("/dev/null")  # any device will do; making one would take root
    ports = _free_ports(len(NODES) + 1)
    shared = "NodeHostname=localhost NodeAddr=127.0.0.1 CPUs=16 RealMemory=100000 Gres=gpu:4 State=UNKNOWN"
    text = CONFIG.format(
        host=socket.gethostname(),
        ctld=ports[0],
        user=getpass.getuser(),
        folder=folder,
        nodes="\n".join(f"NodeName={node} Port={port} {shared}" for node, port in zip(NODES, ports[1:], strict=True)),
        names=",".join(NODES),
    )
    (folder / "slurm.conf").write_text(f"{text}{settings}\n")
    gres = "".join(f"NodeName={node} Name=gpu File={folder}/gpu[0-3]\n" for node in NODES)
    (folder / "gres.conf").write_text(gres)


def _path() -> str:
    """The PATH with the folders of administrators, where the daemons are."""
    return f"{os.environ['PATH']}{os.pathsep}/usr/sbin{os.pathsep}/sbin"


def _idle_nodes(environment: dict[str, str]) -> int:
    command = ["sinfo", "-h", "-N", "-t", "idle", "-o", "%N"]  # once for each partition
    listed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout
    return len(set(listed.split()))


def _wait_for(condition: Callable[[], bool], folder: Path, daemons: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        ended = [number for number, daemon in enumerate(daemons) if daemon.poll() is not None]
        if ended or time.monotonic() > deadline:
            raise SlurmDidNotStart(_what_went_wrong(folder, ended))
        time.sleep(0.2)


def _what_went_wrong(folder: Path, ended: list[int]) -> str:
    """In one line, then at length. ended: the numbers of the daemons that ended by themselves."""
    texts = {path.name: path.read_text() for path in sorted([*folder.glob("*.txt"), *folder.glob("*.log")])}
    suspects = [texts[f"start-{number}.txt"] for number in ended] or list(texts.values())
    lines = [line for text in suspects for line in text.splitlines() if re.search("fatal|error", line, re.I)]
    worst = [line for line in lines if "fatal" in line.lower()] or lines
    what = "a daemon ended by itself" if ended else f"its nodes were not idle after {START_SECONDS} s"
    said = "".join(f"\n{name}:\n{text[-2000:]}" for name, text in texts.items())
    return f"Slurm did not start: {'; '.join([what, *worst[-3:]])}{said}"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
