"""Why Slurm lets a job wait, in words: the reasons that squeue prints."""

from __future__ import annotations

import re

# By the first word of squeue's reason. Some carry more after a comma, such as the nodes that are away.
REASONS: dict[str, str] = {
    "Priority": "other jobs come first",
    "Resources": "it is next, when enough is free",
    "Dependency": "it waits for another job",
    "DependencyNeverSatisfied": "the job that it waits for failed: it never starts",
    "BeginTime": "its start time is not reached",
    "Cleaning": "Slurm still cleans up after its last start",
    "Prolog": "its nodes are being made ready",
    "Licenses": "no licence is free",
    "Reservation": "its reservation has not begun, or is full",
    "ReservationDeleted": "its reservation is gone: it never starts",
    "JobArrayTaskLimit": "as many of its array run as may at once",
    "JobHeldUser": "held by its user",
    "JobHeldAdmin": "held by an administrator",
    "JobHoldMaxRequeue": "held: it was queued again too often",
    "launch failed requeued held": "held: it could not be launched",
    "job requeued in held state": "held: it was queued again to wait",
    "JobLaunchFailure": "it could not be launched",
    "PartitionDown": "its partition takes no jobs",
    "PartitionInactive": "its partition takes no jobs",
    "PartitionNodeLimit": "its partition allows a job fewer nodes: it never starts",
    "PartitionTimeLimit": "its partition allows a job less time: it never starts",
    "PartitionConfig": "its partition does not allow what it asks for",
    "AccountNotAllowed": "its partition does not take its account: it never starts",
    "QOSNotAllowed": "its partition does not take its QOS: it never starts",
    "InvalidAccount": "its account is not known: it never starts",
    "InvalidQOS": "its QOS is not known: it never starts",
    "BadConstraints": "no node has what it asks for: it never starts",
    "NodeDown": "a node that it needs is down",
    "ReqNodeNotAvail": "a node that it needs is down or reserved",
    "Nodes required": "nodes that it needs are down or reserved",
    "FrontEndDown": "the machine that starts jobs is down",
    "SystemFailure": "Slurm, a disk or the network failed",
    "MaxMemPerLimit": "it asks for more memory than is allowed: it never starts",
    "DeadLine": "its deadline cannot be kept",
    "TimeLimit": "its time was up",
    "NonZeroExitCode": "it failed",
    "BurstBufferResources": "no burst buffer is free",
    "BurstBufferStageIn": "its files are being copied",
    # States of a job that waits, for which squeue has no reason.
    "configuring": "its nodes are being started",
    "suspended": "other jobs have its nodes for a while",
    "requeue_hold": "held: it was queued again to wait",
    "special_exit": "held: it was queued again to wait",
}
# QOSMaxJobsPerUserLimit, AssocGrpGRES, QOSMaxNodePerJobLimit, MaxGRESPerAccount, AssociationJobLimit, ...
_LIMIT = re.compile(r"(?P<whose>QOS|Assoc(?:iation)?)?(?P<of>Grp|Max|Min|Usage)?(?P<what>\w*)")
_WHAT = {
    "Minutes": "use",
    "Billing": "use",
    "GRES": "GPUs",
    "Cpu": "CPUs",
    "Node": "nodes",
    "Mem": "memory",
    "Wall": "time",
    "Time": "time",
    "Resource": "resources",
}


def reason_text(reason: str) -> str:
    """Slurm's word, and what it means; the word alone where that is not known, "" where there is none yet."""
    if reason == "None":
        return ""
    words = REASONS.get(reason) or _longer(reason.replace("_", " ").strip("()")) or _limit(reason)
    return f"{reason}: {words}" if words else reason


def _longer(reason: str) -> str:
    """The words for a reason with more behind it, such as ``ReqNodeNotAvail, UnavailableNodes:n[1-3]``."""
    return next((words for name, words in REASONS.items() if re.match(rf"{re.escape(name)}\b", reason)), "")


def _limit(reason: str) -> str:
    match = _LIMIT.match(reason)
    if match is None or not (match["whose"] or match["of"]):
        return ""
    whose = {"Q": "QOS", "A": "account"}.get((match["whose"] or "")[:1], "site")
    if match["of"] == "Usage":
        return f"the {whose}'s share of the cluster is used up"
    counted = re.sub("Per[A-Z][a-z]+", "", match["what"])  # PerUser is of whom, not of what
    what = next((word for name, word in _WHAT.items() if name in counted), "jobs")
    if match["of"] == "Min" or "PerJob" in match["what"]:
        return f"the {whose}'s limit on one job's {what}: it never starts"
    return f"the {whose}'s limit on {what} is reached"
