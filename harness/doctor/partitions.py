"""A cluster file compared with its Slurm's limits: partition, time, nodes, GPUs, account and QOS, how many jobs."""

from __future__ import annotations

from harness.doctor.machine import Finding
from harness.slurm.backend.limits import (
    Limits,
    Needs,
    exceeds_time,
    lifts_time,
    most_running,
    partitions_of,
    permission,
    room,
    taking,
)
from harness.slurm.backend.partitions import Partition
from harness.slurm.clusters import Cluster


def partition_findings(cluster: Cluster, shape: Needs, limits: Limits) -> list[Finding]:
    """Findings on each partition of the cluster file, and on what a user may submit. shape: of the check's job."""
    if not limits.partitions:
        return [Finding("note", "partition", "not checked: neither sinfo nor scontrol says which there are")]
    known = ", ".join(limits.partitions)
    if not cluster.partition and not partitions_of(cluster, limits):
        text = f"the cluster file names none and Slurm has no default. Known: {known}. Set 'partition'."
        return [Finding("fail", "partition", text)]
    findings = list[Finding]()
    # Slurm takes a list of partitions as well, and of these the one that starts the job first.
    for name in cluster.partition.split(",") if cluster.partition else [partitions_of(cluster, limits)[0].name]:
        if name in limits.partitions:
            findings += _findings_of(limits.partitions[name], cluster, shape, limits)
        else:
            findings.append(Finding("fail", "partition", f"there is no {name!r}. Known: {known}."))
    others = [name for name in taking(cluster, shape, limits) if limits.partitions[name].nodes_up >= shape.nodes]
    if others and any(finding.state == "fail" for finding in findings):
        findings.append(Finding("note", "partitions", f"such jobs could start in: {', '.join(others)}"))
    return [*findings, *_numbers(cluster, limits)]


def _findings_of(partition: Partition, cluster: Cluster, shape: Needs, limits: Limits) -> list[Finding]:
    name, is_up = partition.name, partition.state == "up"
    default = "" if cluster.partition else " (Slurm's default)"
    findings = [Finding("ok" if is_up else "fail", "partition", f"{name}{default} is {partition.state}")]
    most, wanted = partition.max_minutes, cluster.time_minutes
    if exceeds_time(partition, cluster):
        text = (
            f"{name} allows {most:g} minutes, the cluster file asks for {wanted} (time_minutes): runs would not start"
        )
        lifted = lifts_time(partition, cluster, limits)
        findings.append(Finding("note" if lifted else "fail", "time limit", text))
    else:
        text = "no limit" if most is None else f"limit {most:g} minutes"
        findings.append(Finding("ok", "time limit", f"{text}; time_minutes: {wanted}"))
    findings += [Finding("fail", "account and QOS", text) for text in permission(partition, cluster, limits)]
    if not partition.groups:
        return [*findings, Finding("note", "nodes up", f"not known: sinfo does not list the nodes of {name}")]
    return [*findings, _nodes(partition, shape.nodes), _gpus(partition, cluster.gpus_per_node)]


def _nodes(partition: Partition, wanted: int) -> Finding:
    text = f"{partition.nodes_up} of {sum(group.nodes for group in partition.groups)}"
    if partition.nodes_up >= wanted:
        return Finding("ok", "nodes up", text)
    states = ", ".join(f"{group.nodes} {group.state}" for group in partition.groups)
    return Finding("fail", "nodes up", f"{text} ({states}); the job needs {wanted}")


def _gpus(partition: Partition, wanted: int) -> Finding:
    there = max(group.gpus for group in partition.groups)
    text = f"{there} in {partition.name}; gpus_per_node: {wanted}"
    if there < wanted:
        return Finding("fail", "GPUs per node", f"at most {text}")
    if there and not wanted:
        return Finding("note", "GPUs per node", f"{text}, so runs use CPUs alone")
    return Finding("ok", "GPUs per node", text)


def _numbers(cluster: Cluster, limits: Limits) -> list[Finding]:
    """How many runs may be submitted, and run at once."""
    free, at_once = room(cluster, limits, queued=0), most_running(cluster, limits)
    parts = [f"arrays of at most {limits.max_array}" for _ in range(limits.max_array is not None)]
    parts += [f"room for {free} more jobs" for _ in range(free is not None)]
    if at_once is not None:
        parts.append(f"{at_once} run at once (parallel: {cluster.parallel})")
    return [Finding("note" if free == 0 else "ok", "limits", "; ".join(parts))] if parts else []
