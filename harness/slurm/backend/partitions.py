"""Partitions and their nodes, from what scontrol and sinfo print."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

# States, as sinfo shortens them, of nodes that take no jobs; nor does a node whose state ends with *.
NOT_UP = ("block", "down", "drain", "drng", "err", "error", "fail", "failg", "futr", "inval", "maint", "unk")
SINFO = ("-a", "-h", "-e", "-o", "%P|%a|%l|%D|%t|%G|%c|%m")  # hidden partitions too; -e: only equal nodes in one line
SCONTROL = ("-a", "-o", "show", "partition")


@dataclass(frozen=True)
class NodeGroup:
    """Equal nodes of one partition: one line of ``sinfo``. gpus, cpus, memory_mb: per node; None: not known."""

    nodes: int
    state: str
    gpus: int
    cpus: int | None = None
    memory_mb: int | None = None

    @property
    def is_up(self) -> bool:
        """Whether jobs can run there, now or when other jobs have ended."""
        return not self.state.endswith("*") and self.state.rstrip("~#!%$@^-") not in NOT_UP


@dataclass(frozen=True)
class Partition:
    """A partition. None: no limit, or a limit that is not known; no job is refused for one.

    state: up, down, drain or inactive. allow_*: only these; deny_*: not these. qos: the one that limits the
    partition's jobs beside their own, or "".
    """

    name: str
    state: str
    is_default: bool = False
    max_minutes: float | None = None
    max_nodes: int | None = None
    max_cpus_per_node: int | None = None
    allow_qos: tuple[str, ...] | None = None
    deny_qos: tuple[str, ...] = ()
    allow_accounts: tuple[str, ...] | None = None
    deny_accounts: tuple[str, ...] = ()
    qos: str = ""
    groups: tuple[NodeGroup, ...] = ()

    @property
    def nodes_up(self) -> int:
        """How many of its nodes take jobs."""
        return sum(group.nodes for group in self.groups if group.is_up)


def parse_partitions(scontrol: str, sinfo: str) -> dict[str, Partition]:
    """All partitions by name, from ``scontrol -a -o show partition`` and ``sinfo`` with the options ``SINFO``.

    One of the two texts may be empty, and then what only it says is not known.
    """
    lines = list(_sinfo_lines(sinfo))
    found = {name: partition for name, partition, _ in lines}
    found |= {partition.name: partition for partition in _scontrol_partitions(scontrol)}
    groups: dict[str, list[NodeGroup]] = {}
    for name, _, group in lines:
        groups.setdefault(name, []).append(group)
    return {name: _with_nodes(partition, groups.get(name, ())) for name, partition in found.items()}


def _with_nodes(partition: Partition, groups: Iterable[NodeGroup]) -> Partition:
    return replace(partition, groups=tuple(groups))


def _scontrol_partitions(text: str) -> Iterator[Partition]:
    for line in text.splitlines():
        said = dict(part.split("=", 1) for part in line.split() if "=" in part)
        if "PartitionName" not in said:
            continue
        yield Partition(
            name=said["PartitionName"],
            state=said.get("State", "UP").lower(),
            is_default=said.get("Default") == "YES",
            max_minutes=minutes(said.get("MaxTime", "")),
            max_nodes=number(said.get("MaxNodes", "")),
            max_cpus_per_node=number(said.get("MaxCPUsPerNode", "")),
            allow_qos=_names(said.get("AllowQos", "ALL")),
            deny_qos=_names(said.get("DenyQos", "")) or (),
            allow_accounts=_names(said.get("AllowAccounts", "ALL")),
            deny_accounts=_names(said.get("DenyAccounts", "")) or (),
            qos="" if said.get("QoS", "N/A") == "N/A" else said["QoS"],
        )


def _sinfo_lines(text: str) -> Iterator[tuple[str, Partition, NodeGroup]]:
    for line in text.splitlines():
        if line.count("|") < 5:
            continue
        name, available, limit, nodes, state, gres, *more = (part.strip() for part in line.split("|"))
        name, is_default = name.rstrip("*"), name.endswith("*")
        cpus, memory = (number(text) for text in [*more, "", ""][:2])
        partition = Partition(name, available, is_default, minutes(limit))
        yield name, partition, NodeGroup(number(nodes) or 0, state, gpus_in(gres), cpus, memory)


def _names(text: str) -> tuple[str, ...] | None:
    """Names between commas; None for all."""
    return None if text == "ALL" else tuple(name for name in text.split(",") if name)


def number(text: str) -> int | None:
    """A number as Slurm's programs print it; None for UNLIMITED, N, and no number."""
    match = re.fullmatch(r"(\d+)\+?", text.strip())
    return None if match is None else int(match[1])


def minutes(text: str) -> float | None:
    """Minutes of ``[days-][[hours:]minutes:]seconds``; None for "infinite" and other words."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, whole, seconds = (int(part or 0) for part in match.groups())
    return (days * 24 + hours) * 60 + whole + seconds / 60


def gpus_in(gres: str) -> int:
    """The GPUs in a node's generic resources, such as ``gpu:a100:4(S:0-1),nvme:1``."""
    count = 0
    for resource in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, *_, last = resource.split(":") if ":" in resource else (resource, "1")
        if name == "gpu":
            count += int(last) if last.isdigit() else 1
    return count
