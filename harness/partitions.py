"""What ``sinfo`` says of a cluster file's partition: whether it is there, its time limit, its nodes and their GPUs."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from detector.errors import SchedulerError
from harness.clusters import Cluster
from harness.doctor import Finding
from harness.submission import SQUEUE_SECONDS

# States, as sinfo shortens them, of nodes that take no jobs now; so does one whose state ends with *.
NOT_UP = ("block", "down", "drain", "drng", "err", "error", "fail", "failg", "futr", "inval", "maint", "unk")


@dataclass(frozen=True)
class NodeGroup:
    """Nodes of one partition that are alike: one line of ``sinfo``."""

    partition: str
    is_default: bool
    available: str  # of the partition: up, down, drain, inact
    limit_minutes: float | None  # None: no limit
    nodes: int
    state: str
    gpus: int  # a node

    @property
    def is_up(self) -> bool:
        """Whether jobs can run there, now or after those that run there now."""
        return not self.state.endswith("*") and self.state.rstrip("~#!%$@^-") not in NOT_UP


def read_partitions() -> list[NodeGroup]:
    """All partitions, hidden ones too. Raises SchedulerError where ``sinfo`` does not answer."""
    command = ["sinfo", "-a", "-h", "-o", "%P|%a|%l|%D|%t|%G"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SQUEUE_SECONDS)
    except FileNotFoundError as error:
        raise SchedulerError("sinfo is not on the PATH.") from error
    except subprocess.TimeoutExpired as error:
        raise SchedulerError(f"sinfo did not answer within {SQUEUE_SECONDS:.0f} s.") from error
    if done.returncode != 0:
        raise SchedulerError(f"sinfo failed: {done.stderr.strip() or done.returncode}.")
    return [_group(line) for line in done.stdout.splitlines() if line.count("|") == 5]


def partition_findings(cluster: Cluster, nodes: int) -> list[Finding]:
    """Against what the cluster file says. nodes: how many one job of the probe takes."""
    try:
        groups = read_partitions()
    except SchedulerError as error:
        return [Finding("note", "partition", f"not looked at: {error}")]
    known = list(dict.fromkeys(group.partition for group in groups))
    # Slurm takes a list of partitions as well, and of these the one that starts the job first.
    names = cluster.partition.split(",") if cluster.partition else [g.partition for g in groups if g.is_default][:1]
    if not names:
        text = f"the cluster file names none and Slurm has no default. Known: {', '.join(known)}. Set 'partition'."
        return [Finding("fail", "partition", text)]
    findings = list[Finding]()
    for name in names:
        own = [group for group in groups if group.partition == name]
        if own:
            findings += _findings_of(name, own, cluster, nodes)
        else:
            findings.append(Finding("fail", "partition", f"there is no {name!r}. Known: {', '.join(known)}."))
    return findings


def _findings_of(name: str, groups: Sequence[NodeGroup], cluster: Cluster, nodes: int) -> list[Finding]:
    is_up = groups[0].available == "up"
    default = "" if cluster.partition else " (Slurm's default)"
    findings = [Finding("ok" if is_up else "fail", "partition", f"{name}{default} is {groups[0].available}")]
    limit, wanted = groups[0].limit_minutes, cluster.time_minutes
    if limit is None or limit >= wanted:
        most = "no limit" if limit is None else f"limit {limit:g} minutes"
        findings.append(Finding("ok", "time limit", f"{most}; time_minutes: {wanted}"))
    else:
        text = (
            f"{name} allows {limit:g} minutes, the cluster file asks for {wanted} (time_minutes): runs would not start"
        )
        # A quality of service may lift a partition's limits.
        findings.append(Finding("note" if cluster.qos else "fail", "time limit", text))
    up, total = sum(group.nodes for group in groups if group.is_up), sum(group.nodes for group in groups)
    text = f"{up} of {total}"
    if up < nodes:
        states = ", ".join(f"{group.nodes} {group.state}" for group in groups)
        text += f" ({states}); the job needs {nodes}"
    findings.append(Finding("ok" if up >= nodes else "fail", "nodes up", text))
    return [*findings, _gpus(name, max(group.gpus for group in groups), cluster.gpus_per_node)]


def _gpus(name: str, there: int, wanted: int) -> Finding:
    text = f"{there} in {name}; gpus_per_node: {wanted}"
    if there < wanted:
        return Finding("fail", "GPUs a node", f"at most {text}")
    if there and not wanted:
        return Finding("note", "GPUs a node", f"{text}, so runs use CPUs alone")
    return Finding("ok", "GPUs a node", text)


def _group(line: str) -> NodeGroup:
    partition, available, limit, nodes, state, gres = (part.strip() for part in line.split("|"))
    return NodeGroup(
        partition.rstrip("*"), partition.endswith("*"), available, _minutes(limit), int(nodes), state, _gpus_in(gres)
    )


def _minutes(limit: str) -> float | None:
    """Of ``[days-][[hours:]minutes:]seconds``, as sinfo writes limits; None for "infinite" and what is no time."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return (days * 24 + hours) * 60 + minutes + seconds / 60


def _gpus_in(gres: str) -> int:
    """The GPUs in a node's generic resources, such as ``gpu:a100:4(S:0-1),nvme:1``."""
    count = 0
    for resource in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, *_, last = resource.split(":") if ":" in resource else (resource, "1")
        if name == "gpu":
            count += int(last) if last.isdigit() else 1
    return count
