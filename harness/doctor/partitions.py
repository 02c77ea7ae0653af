"""A cluster file's partition compared with ``sinfo``: whether it exists, its time limit, its nodes and their GPUs."""

from __future__ import annotations

from collections.abc import Sequence

from detector.errors import SchedulerError
from harness.doctor.machine import Finding
from harness.slurm.clusters import Cluster
from harness.slurm.commands import NodeGroup, read_partitions


def partition_findings(cluster: Cluster, nodes: int) -> list[Finding]:
    """Findings on each partition of the cluster file. nodes: how many the job of the check takes."""
    try:
        groups = read_partitions()
    except SchedulerError as error:
        return [Finding("note", "partition", f"not checked: {error}")]
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
        return Finding("fail", "GPUs per node", f"at most {text}")
    if there and not wanted:
        return Finding("note", "GPUs per node", f"{text}, so runs use CPUs alone")
    return Finding("ok", "GPUs per node", text)
