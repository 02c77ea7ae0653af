"""What a cluster is to be, as data, and the configuration files that say so to Slurm."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

NODES = ("n1", "n2")
# Jobs in it lose their nodes to those of main and urgent, without a word before: they are cancelled.
CHEAP = "cheap"
CHEAP_SETTINGS = "PriorityTier=0 PreemptMode=CANCEL GraceTime=0"


@dataclass(frozen=True)
class Accounts:
    """Accounts and limits, kept by slurmdbd in a MariaDB of their own.

    qos: by name, what sacctmgr is to set in it ("MaxSubmitJobsPerUser=3"). Every user may use each of them. users:
    names of those who may submit. enforce: what AccountingStorageEnforce says.
    """

    qos: Mapping[str, str] = field(default_factory=dict)
    users: tuple[str, ...] = (getpass.getuser(),)
    enforce: str = "associations,limits,qos"


@dataclass(frozen=True)
class ClusterPlan:
    """A cluster of nodes that are all this machine. Any user may start it; its jobs are then that user's.

    name: ClusterName. settings: further keys of slurm.conf, or other values of keys that are there. partitions: further
    ones by name, beside ``main`` (the default), ``urgent``, to which the others make room, and ``cheap``, which is
    cancelled for both; each with its keys, less its nodes. accounts: None for a Slurm that keeps none, like many.
    """

    name: str = "test"
    nodes: tuple[str, ...] = NODES
    settings: Mapping[str, str] = field(default_factory=dict)
    partitions: Mapping[str, str] = field(default_factory=dict)
    accounts: Accounts | None = None


# A requeued job waits until its old credential has expired (two minutes by default).
CREDENTIAL_SECONDS = 15
# A killed job waits for KillWait. Slurm notices a lost node after five minutes of silence by default.
SETTINGS = {
    "AuthType": "auth/munge",
    "ProctrackType": "proctrack/linuxproc",
    "TaskPlugin": "task/none",
    "MpiDefault": "none",
    "SelectType": "select/cons_tres",
    "SelectTypeParameters": "CR_Core",
    "SlurmdParameters": "config_overrides",
    "ReturnToService": "2",
    "JobRequeue": "1",
    "KillWait": "10",
    "MinJobAge": "300",
    "SchedulerParameters": "sched_interval=2,sched_min_interval=0",
    "GresTypes": "gpu",
    "PreemptType": "preempt/partition_prio",
    "PreemptMode": "REQUEUE",
}
PARTITIONS = {
    "main": "Default=YES PriorityTier=1 GraceTime=30",
    "urgent": "PriorityTier=10 PreemptMode=OFF",
    CHEAP: CHEAP_SETTINGS,
}
DATABASE_USER = "slurm"


@dataclass(frozen=True)
class Ports:
    """Free ports of this machine, one per daemon. nodes: in the order of the plan's."""

    controller: int
    nodes: tuple[int, ...]
    accounts: int
    database: int


def free_ports(plan: ClusterPlan) -> Ports:
    """As many as the plan's daemons need."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(len(plan.nodes) + 3)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        found = [int(probe.getsockname()[1]) for probe in probes]
    return Ports(found[0], tuple(found[3:]), found[1], found[2])


def write_configuration(folder: Path, plan: ClusterPlan) -> Ports:
    """The files that the daemons read, with folders for what they keep. Returns the ports that the files name."""
    ports = free_ports(plan)
    for name in ("state", *(f"spool-{node}" for node in plan.nodes)):
        (folder / name).mkdir()
    _write_secret(folder / "munge.key", os.urandom(128))
    for gpu in range(4):
        (folder / f"gpu{gpu}").symlink_to("/dev/null")  # any device will do; making one would take root
    (folder / "slurm.conf").write_text(slurm_conf(folder, plan, ports))
    gres = "".join(f"NodeName={node} Name=gpu File={folder}/gpu[0-3]\n" for node in plan.nodes)
    (folder / "gres.conf").write_text(gres)
    if plan.accounts is not None:
        _write_secret(folder / "slurmdbd.conf", slurmdbd_conf(folder, ports).encode())
    return ports


def slurm_conf(folder: Path, plan: ClusterPlan, ports: Ports) -> str:
    """The text of slurm.conf."""
    user = getpass.getuser()
    lines = {
        "ClusterName": plan.name,
        "SlurmctldHost": f"{socket.gethostname()}(127.0.0.1)",
        "SlurmctldPort": str(ports.controller),
        "SlurmUser": user,
        "SlurmdUser": user,
        "AuthInfo": f"socket={folder}/munge.sock,cred_expire={CREDENTIAL_SECONDS}",
        "StateSaveLocation": f"{folder}/state",
        "SlurmdSpoolDir": f"{folder}/spool-%n",
        "SlurmctldPidFile": f"{folder}/slurmctld.pid",
        "SlurmdPidFile": f"{folder}/slurmd-%n.pid",
        "SlurmctldLogFile": f"{folder}/slurmctld.log",
        "SlurmdLogFile": f"{folder}/slurmd-%n.log",
        **SETTINGS,
    }
    if plan.accounts is not None:
        lines |= {
            "AccountingStorageType": "accounting_storage/slurmdbd",
            "AccountingStorageHost": "127.0.0.1",
            "AccountingStoragePort": str(ports.accounts),
            "AccountingStoragePass": f"{folder}/munge.sock",
            "AccountingStorageEnforce": plan.accounts.enforce,
        }
    text = "".join(f"{name}={value}\n" for name, value in (lines | dict(plan.settings)).items())
    shared = "NodeHostname=localhost NodeAddr=127.0.0.1 CPUs=16 RealMemory=100000 Gres=gpu:4 State=UNKNOWN"
    for node, port in zip(plan.nodes, ports.nodes, strict=True):
        text += f"NodeName={node} Port={port} {shared}\n"
    everywhere = f"Nodes={','.join(plan.nodes)} "
    for name, keys in (PARTITIONS | dict(plan.partitions)).items():
        text += f"PartitionName={name} {'' if 'Nodes=' in keys else everywhere}{keys}\n"
    return text


def slurmdbd_conf(folder: Path, ports: Ports) -> str:
    """The text of slurmdbd.conf."""
    lines = {
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={folder}/munge.sock",
        "DbdHost": "localhost",
        "DbdPort": str(ports.accounts),
        "SlurmUser": getpass.getuser(),
        "LogFile": f"{folder}/slurmdbd.log",
        "PidFile": f"{folder}/slurmdbd.pid",
        "StorageType": "accounting_storage/mysql",
        "StorageHost": "127.0.0.1",
        "StoragePort": str(ports.database),
        "StorageUser": DATABASE_USER,
        "StoragePass": "slurm",
        "StorageLoc": "slurm_acct",
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items())


def _write_secret(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
