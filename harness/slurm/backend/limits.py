"""What a Slurm lets a user submit: how long arrays may be, how many jobs there may be, and what would never start.

What no program says is not known, and then nothing is held back or refused for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from msgspec.structs import replace

from harness.slurm.backend.accounts import Accounts, Association, Cap, Kind, Qos, Text, caps, read_accounts
from harness.slurm.backend.partitions import SCONTROL, SINFO, Partition, number, parse_partitions
from harness.slurm.clusters import Cluster


class Needs(Protocol):
    """The resources of one run. memory_gb: per node."""

    @property
    def nodes(self) -> int: ...
    @property
    def tasks_per_node(self) -> int: ...
    @property
    def on_gpus(self) -> bool: ...
    @property
    def cpus_per_task(self) -> int: ...
    @property
    def memory_gb(self) -> float | None: ...


@dataclass(frozen=True)
class Limits:
    """What a Slurm says of its limits. Empty or None: not known, or none.

    max_array: how many elements an array may have. max_jobs: of everybody together. enforced: what of the accounts
    Slurm holds jobs to.
    """

    cluster_name: str = ""
    max_array: int | None = None
    max_jobs: int | None = None
    enforced: tuple[str, ...] = ()
    partitions: Mapping[str, Partition] = field(default_factory=dict)
    accounts: Accounts = field(default_factory=Accounts)

    def holds_to(self, what: str) -> bool:
        """Whether Slurm holds jobs to the accounts' limits, or to the QOS that a user has."""
        return bool({what, "all", "safe" if what == "limits" else what} & set(self.enforced))


@dataclass(frozen=True)
class Cut:
    """How runs are submitted. sizes: of the arrays, in order; held: runs for which there is no room now, and why."""

    sizes: tuple[int, ...]
    held: int = 0
    why: str = ""


def read_limits(text: Text, user: str) -> Limits:
    """Ask for all limits that a user has, by six short calls; by three where Slurm holds jobs to no accounts.

    text: what a program prints, given its name and arguments; "" where it is not there or refuses.
    """
    lines = (line.partition("=") for line in text("scontrol", "show", "config").splitlines())
    config = {name.strip(): value.strip() for name, _, value in lines}
    name = config.get("ClusterName", "")
    enforced = tuple(word for word in config.get("AccountingStorageEnforce", "").split(",") if word not in ("", "none"))
    return Limits(
        cluster_name=name,
        max_array=number(config.get("MaxArraySize", "")),
        max_jobs=number(config.get("MaxJobCount", "")),
        enforced=enforced,
        partitions=parse_partitions(text("scontrol", *SCONTROL), text("sinfo", *SINFO)),
        accounts=read_accounts(text, user, name) if enforced else Accounts(),
    )


def cut(num_runs: int, cluster: Cluster, limits: Limits, *, queued: int, added: int = 0) -> Cut:
    """The arrays for so many runs, and how many of them must wait for another call.

    cluster: as the jobs have it (``for_job``). queued: the user's jobs in the queue, each element of an array as one.
    added: jobs that were submitted after the limits were read.
    """
    tightest = min(_places(cluster, limits, queued=queued, added=added), key=lambda place: place[0], default=None)
    now = num_runs if tightest is None else min(num_runs, tightest[0])
    longest = max(1, limits.max_array or num_runs or 1)
    sizes = tuple(min(longest, now - first) for first in range(0, now, longest))
    if tightest is None or now == num_runs:
        return Cut(sizes)
    _, cap, there = tightest
    why = (
        f"{cap.who} have {cap.most} jobs in the queue, {there} are there: {now} submitted, {num_runs - now} held back; "
        "the same command, or --stay, submits them"
    )
    return Cut(sizes, num_runs - now, why)


def room(cluster: Cluster, limits: Limits, *, queued: int, added: int = 0) -> int | None:
    """How many jobs more a user may submit; None: no limit is known."""
    return min((free for free, _, _ in _places(cluster, limits, queued=queued, added=added)), default=None)


def most_running(cluster: Cluster, limits: Limits) -> int | None:
    """How many jobs of the user's Slurm runs at once; None: no limit is known."""
    return min((cap.most for cap in _caps(cluster, limits, "Jobs")), default=None)


def _places(cluster: Cluster, limits: Limits, *, queued: int, added: int) -> Iterator[tuple[int, Cap, int]]:
    """For each limit, how many jobs are free, and how many are there."""
    known = [*_caps(cluster, limits, "SubmitJobs")]
    if limits.max_jobs is not None:
        known.append(Cap("this Slurm (MaxJobCount) lets all its users together", limits.max_jobs, None))
    for cap in known:
        there = (queued if cap.there is None else cap.there) + added
        yield max(0, cap.most - there), cap, there


def _caps(cluster: Cluster, limits: Limits, kind: Kind) -> Iterator[Cap]:
    """The limits on the number of jobs. Of several partitions any may start a job, so the first is looked at."""
    if not limits.holds_to("limits"):
        return
    partition = next(iter(partitions_of(cluster, limits)), None)
    association = _association(cluster, limits, partition)
    services = _services(cluster, limits, association, partition)
    yield from caps(limits.accounts, kind, association, services)


def _association(cluster: Cluster, limits: Limits, partition: Partition | None) -> Association | None:
    return limits.accounts.association(cluster.account, partition.name if partition else "")


def _services(
    cluster: Cluster, limits: Limits, association: Association | None, partition: Partition | None
) -> list[Qos]:
    """The QOS whose limits a job meets, the one that goes first first."""
    accounts = limits.accounts
    own = accounts.qos.get(accounts.qos_of(cluster.qos, association))
    wider = accounts.qos.get(partition.qos) if partition else None
    both = [wider, own] if own is None or "OverPartQOS" not in own.flags else [own, wider]
    return [qos for qos in both if qos is not None]


def partitions_of(cluster: Cluster, limits: Limits) -> list[Partition]:
    """The partitions that a cluster file names and Slurm knows; without a name, Slurm's default."""
    if cluster.partition:
        return [limits.partitions[name] for name in cluster.partition.split(",") if name in limits.partitions]
    return [item for item in limits.partitions.values() if item.is_default][:1]


def never_starts(cluster: Cluster, shape: Needs, limits: Limits) -> list[str]:
    """Why no job of this shape would start, in sentences that end with the partitions that would take it.

    Empty where one of the cluster file's partitions takes it, and where too little is known. The partition of
    ``fallback`` is looked at too. cluster: as the job has it (``for_job``).
    """
    if not limits.partitions:
        return []
    found = _refusals(cluster, shape, limits)
    if cluster.fallback is not None:
        later = replace(cluster, partition=cluster.fallback.partition, fallback=None)
        found += [f"As fallback: {text[0].lower()}{text[1:]}" for text in _refusals(later, shape, limits)]
    return found


def _refusals(cluster: Cluster, shape: Needs, limits: Limits) -> list[str]:
    names = (
        cluster.partition.split(",") if cluster.partition else [item.name for item in partitions_of(cluster, limits)]
    )
    if not names:
        return [f"Slurm has no default partition and the cluster file names none.{_others(cluster, shape, limits)}"]
    problems = dict[str, list[str]]()
    for name in names:
        partition = limits.partitions.get(name)
        problems[name] = (
            list(_problems(partition, cluster, shape, limits)) if partition else [f"there is no partition {name}"]
        )
    if not all(problems.values()):
        return []
    found = dict.fromkeys(text for texts in problems.values() for text in texts)
    return [f"{text[0].upper()}{text[1:]}.{_others(cluster, shape, limits)}" for text in found]


def taking(cluster: Cluster, shape: Needs, limits: Limits) -> list[str]:
    """The partitions in which a job of this shape would start one day, as far as is known."""
    return [name for name, item in limits.partitions.items() if not any(_problems(item, cluster, shape, limits))]


def _others(cluster: Cluster, shape: Needs, limits: Limits) -> str:
    names = taking(cluster, shape, limits)
    return f" Partitions that would take it: {', '.join(names)}." if names else " No partition would take it."


def _problems(partition: Partition, cluster: Cluster, shape: Needs, limits: Limits) -> Iterator[str]:
    """Why one partition would never start a job."""
    association = _association(cluster, limits, partition)
    services = _services(cluster, limits, association, partition)
    if partition.state != "up":
        yield f"partition {partition.name} is {partition.state.upper()}"
    yield from _time(partition, cluster, limits, association, services)
    yield from permission(partition, cluster, limits)
    yield from _machines(partition, shape)
    lifted = _lifted("PartitionMaxNodes", cluster, limits, services)
    if partition.max_nodes is not None and shape.nodes > partition.max_nodes and not lifted:
        yield f"partition {partition.name} allows a job {_nodes(partition.max_nodes)}, a run takes {shape.nodes}"


def _nodes(count: int) -> str:
    return f"{count} node" if count == 1 else f"{count} nodes"


def exceeds_time(partition: Partition, cluster: Cluster) -> bool:
    """Whether the job asks for more time than the partition allows by itself; a QOS may lift that."""
    return partition.max_minutes is not None and cluster.time_minutes > partition.max_minutes


def lifts_time(partition: Partition, cluster: Cluster, limits: Limits) -> bool:
    """Whether the job's QOS lifts the partition's time limit, or may, where that is not known."""
    services = _services(cluster, limits, _association(cluster, limits, partition), partition)
    return _lifted("PartitionTimeLimit", cluster, limits, services)


def _lifted(flag: str, cluster: Cluster, limits: Limits, services: Sequence[Qos]) -> bool:
    """Whether the job's QOS lifts a limit of the partition's, or may, where Slurm has not said what a QOS does."""
    return any(flag in qos.flags for qos in services) or (cluster.qos is not None and not limits.accounts.qos)


def _time(
    partition: Partition, cluster: Cluster, limits: Limits, association: Association | None, services: Sequence[Qos]
) -> Iterator[str]:
    wanted = cluster.time_minutes
    asks = f"the cluster file asks for {wanted} (time_minutes)"
    if exceeds_time(partition, cluster) and not lifts_time(partition, cluster, limits):
        yield f"partition {partition.name} allows {partition.max_minutes:g} minutes, {asks}"
    if not limits.holds_to("limits"):
        return
    limit = next((qos for qos in services if qos.max_minutes is not None), None)
    if limit is not None and limit.max_minutes is not None and wanted > limit.max_minutes:
        yield f"QOS {limit.name} allows {limit.max_minutes:g} minutes, {asks}"
    elif limit is None and association and association.max_minutes is not None and wanted > association.max_minutes:
        yield f"account {association.account} allows you {association.max_minutes:g} minutes, {asks}"


def permission(partition: Partition, cluster: Cluster, limits: Limits) -> Iterator[str]:
    """Why account or QOS may not be used there, as far as Slurm has said which the user has."""
    accounts, association = limits.accounts, _association(cluster, limits, partition)
    if cluster.account and accounts.associations and association is None:
        mine = ", ".join(dict.fromkeys(item.account for item in accounts.associations))
        yield f"account {cluster.account} is none of yours: {mine}"
        return
    not_mine = association and association.qos and cluster.qos not in association.qos
    if cluster.qos and association and not_mine and limits.holds_to("qos"):
        yield f"QOS {cluster.qos} is none of yours in account {association.account}: {', '.join(association.qos)}"
    qos = accounts.qos_of(cluster.qos, association)
    account = association.account if association else cluster.account or ""
    for what, name, allowed, denied in (
        ("QOS", qos, partition.allow_qos, partition.deny_qos),
        ("account", account, partition.allow_accounts, partition.deny_accounts),
    ):
        if name and allowed is not None and name not in allowed:
            yield f"partition {partition.name} takes no jobs of {what} {name}, only of {', '.join(allowed)}"
        elif name in denied:
            yield f"partition {partition.name} takes no jobs of {what} {name}"


def _machines(partition: Partition, needs: Needs) -> Iterator[str]:
    """Whether enough nodes have what each node of the job needs: also those that are down, which may come back."""
    groups = partition.groups
    if not groups:
        return
    cpus = needs.tasks_per_node * needs.cpus_per_task
    megabytes = round(1024 * (needs.memory_gb or 0))
    for wanted, word, there in (
        (0, "", [(0, group.nodes) for group in groups]),
        (needs.tasks_per_node if needs.on_gpus else 0, "GPUs", [(group.gpus, group.nodes) for group in groups]),
        (cpus, "CPUs", [(group.cpus, group.nodes) for group in groups]),
        (megabytes, "MB of memory", [(group.memory_mb, group.nodes) for group in groups]),
    ):
        fitting = sum(nodes for most, nodes in there if most is None or most >= wanted)
        if fitting < needs.nodes:
            with_it = (
                f" with {wanted} {word} (the most of a node: {max(most or 0 for most, _ in there)})" if word else ""
            )
            yield f"partition {partition.name} has {_nodes(fitting)}{with_it}, a run takes {needs.nodes}"
            return
    if partition.max_cpus_per_node is not None and cpus > partition.max_cpus_per_node:
        most_cpus = partition.max_cpus_per_node
        yield f"partition {partition.name} gives a job {most_cpus} CPUs of a node, a run takes {cpus}"
