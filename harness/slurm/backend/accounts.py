"""What Slurm's accounts allow a user: how many jobs, in which quality of service (QOS), for how long.

Of one kind of limit the first counts that is set: by the QOS of the partition, by the job's, by the association of user
and account. An account's limits hold for all its users together, and for those of the accounts below it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from harness.slurm.backend.partitions import minutes, number

Text = Callable[..., str]  # what a program prints, given its name and arguments; "" where it is not there or refuses
Kind = Literal["SubmitJobs", "Jobs"]  # in the queue; running at once
USER = (
    *("DefaultAccount", "Cluster", "Account", "Partition", "DefaultQOS", "QOS"),
    *("MaxSubmitJobs", "MaxJobs", "MaxWall"),
)
QOS = (
    *("Name", "Flags", "MaxWall", "MaxSubmitJobsPU", "MaxSubmitJobsPA", "GrpSubmitJobs"),
    *("MaxJobsPU", "MaxJobsPA", "GrpJobs"),
)
_COUNT = re.compile(r"\b((?:Grp|Max)(?:Submit)?Jobs(?:PU|PA)?)=(N|\d+)?\((\d+)\)")  # GrpSubmitJobs=100(6): 6 are there
_OWNER = re.compile(r"\bAccount=(\S*) UserName=([^\s(]*)(?:\((\d+)\))? Partition=(\S*)")
_MEMBER = re.compile(r"(\S+)=\{([^}]*)\}")


@dataclass(frozen=True)
class Association:
    """What a user may do in one account. partition: the only one for which this holds, or "". most: by Slurm's key."""

    account: str
    partition: str
    default_qos: str
    qos: tuple[str, ...]
    max_minutes: float | None
    most: Mapping[str, int]

    @property
    def owner(self) -> str:
        """Its name in ``Accounts.groups`` and ``Accounts.there``."""
        return f"user in {self.account}:{self.partition}"


@dataclass(frozen=True)
class Qos:
    """A quality of service. most: its limits by Slurm's key, such as MaxSubmitJobsPU, of one user."""

    name: str
    flags: tuple[str, ...]
    max_minutes: float | None
    most: Mapping[str, int]


@dataclass(frozen=True)
class Accounts:
    """What Slurm says of a user's accounts. Empty: not known, or none are kept.

    groups: limits of the accounts by owner and Slurm's key. parents: of each account the one above. there: by owner
    and key how many jobs there are, whoever submitted them.
    """

    default_account: str = ""
    associations: tuple[Association, ...] = ()
    qos: Mapping[str, Qos] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[tuple[str, str], int] = field(default_factory=dict)
    there: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def association(self, account: str | None, partition: str) -> Association | None:
        """The user's association for a job of this account; None for the default one."""
        wanted = account or self.default_account
        mine = [item for item in self.associations if item.account == wanted and item.partition in ("", partition)]
        return max(mine, key=lambda item: item.partition, default=None)

    def qos_of(self, qos: str | None, association: Association | None) -> str:
        """The QOS that a job gets; "" where it is not known. qos: the one that it asks for."""
        if qos or association is None:
            return qos or ""
        alone = association.qos[0] if len(association.qos) == 1 else "normal"
        return association.default_qos or alone


@dataclass(frozen=True)
class Cap:
    """One limit in words. there: how many jobs count for it now; None: not known, so one's own are counted."""

    who: str
    most: int
    there: int | None


def read_accounts(text: Text, user: str, cluster: str) -> Accounts:
    """Ask for a user's accounts on the Slurm of this ClusterName, by three short calls."""
    said = text("sacctmgr", "-nP", "show", "user", user, "withassoc", f"format={','.join(USER)}")
    qos = text("sacctmgr", "-nP", "show", "qos", f"format={','.join(QOS)}")
    counts = text("scontrol", "-o", "show", "assoc_mgr", f"users={user}", "flags=assoc,qos")
    return parse_accounts(said, qos, counts, user=user, cluster=cluster)


def parse_accounts(associations: str, qos: str, counts: str, *, user: str, cluster: str) -> Accounts:
    """The three texts that ``read_accounts`` asks for. Any of them may be empty."""
    mine = [row for row in _rows(associations, USER) if row["Cluster"].lower() == cluster.lower()]
    parents, groups, there = _counted(counts, user)
    return Accounts(
        default_account=mine[0]["DefaultAccount"] if mine else "",
        associations=tuple(
            Association(
                row["Account"],
                row["Partition"],
                row["DefaultQOS"],
                _words(row["QOS"]),
                minutes(row["MaxWall"]),
                _limits(row),
            )
            for row in mine
        ),
        qos={
            row["Name"]: Qos(row["Name"], _words(row["Flags"]), minutes(row["MaxWall"]), _limits(row))
            for row in _rows(qos, QOS)
        },
        parents=parents,
        groups=groups,
        there=there,
    )


def _rows(text: str, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    for line in text.splitlines():
        values = line.split("|")
        if len(values) == len(columns):
            yield dict(zip(columns, values, strict=True))


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


def _limits(row: Mapping[str, str]) -> dict[str, int]:
    found = {key: number(value) for key, value in row.items() if "Jobs" in key}
    return {key: most for key, most in found.items() if most is not None}


def _counted(text: str, user: str) -> tuple[dict[str, str], dict[tuple[str, str], int], dict[tuple[str, str], int]]:
    """Parents of accounts, limits of groups, and how many jobs there are, from ``scontrol show assoc_mgr``."""
    parents, groups, there = dict[str, str](), dict[tuple[str, str], int](), dict[tuple[str, str], int]()
    number_of_user = ""
    for line in text.splitlines():
        found = _OWNER.search(line)
        if found and found[2] in ("", user):
            owner = f"user in {found[1]}:{found[4]}" if found[2] else f"account {found[1]}"
            number_of_user = found[3] or number_of_user
            if parent := re.search(r"\bParentAccount=([^\s(]+)", line):
                parents[found[1]] = parent[1]
            for key, most, count in _COUNT.findall(line):
                there[owner, key] = int(count)
                if key.startswith("Grp") and most.isdigit():
                    groups[owner, key] = int(most)
        elif named := re.match(r"QOS=(\S+)\(\d+\) ", line):
            there |= _counted_of_qos(f"QOS {named[1]}", line, number_of_user)
    return parents, groups, there


def _counted_of_qos(owner: str, line: str, number_of_user: str) -> dict[tuple[str, str], int]:
    own, _, rest = line.partition(" Account Limits=")
    accounts, _, users = rest.partition(" User Limits=")
    found = {(owner, key): int(count) for key, _, count in _COUNT.findall(own)}
    for name, counts in _MEMBER.findall(accounts):
        found |= {(f"{owner} in {name}", key): int(count) for key, _, count in _COUNT.findall(counts)}
    for name, counts in _MEMBER.findall(users):
        if name == number_of_user:
            found |= {(owner, key): int(count) for key, _, count in _COUNT.findall(counts)}
    return found


def caps(accounts: Accounts, kind: Kind, association: Association | None, services: list[Qos]) -> Iterator[Cap]:
    """The limits that a job meets. services: the QOS of its partition and its own, the one that goes first first."""

    def cap(who: str, owner: str, key: str, most: int) -> Cap:
        return Cap(who, most, accounts.there.get((owner, key)))

    account = association.account if association else ""
    group, per_user, per_account = f"Grp{kind}", f"Max{kind}PU", f"Max{kind}PA"
    of_user = next((qos for qos in services if per_user in qos.most), None)
    of_account = next((qos for qos in services if per_account in qos.most), None)
    of_group = next((qos for qos in services if group in qos.most), None)
    if of_user:
        yield cap(f"QOS {of_user.name} lets you", f"QOS {of_user.name}", per_user, of_user.most[per_user])
    if of_account:
        owner = f"QOS {of_account.name} in {account}"
        who = f"QOS {of_account.name} lets account {account or 'yours'}"
        yield cap(who, owner, per_account, of_account.most[per_account])
    if of_group:
        who = f"QOS {of_group.name} lets all its users together"
        yield cap(who, f"QOS {of_group.name}", group, of_group.most[group])
    if association is None:
        return
    key = f"Max{kind}"
    if not (of_user or of_account) and key in association.most:
        yield cap(f"account {account} lets you", association.owner, key, association.most[key])
    if not of_group:
        for owner in (association.owner, *(f"account {name}" for name in _upwards(account, accounts.parents))):
            if (owner, group) in accounts.groups:
                who = f"account {account} lets you" if owner == association.owner else f"{owner} lets all its users"
                yield cap(who, owner, group, accounts.groups[owner, group])


def _upwards(account: str, parents: Mapping[str, str]) -> list[str]:
    """The account and those above it."""
    chain = list[str]()
    while account and account not in chain:
        chain.append(account)
        account = parents.get(account, "")
    return chain
