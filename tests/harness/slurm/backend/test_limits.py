"""What a Slurm lets a user submit, from texts as its programs print them (those of a Slurm 22.05)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from harness.slurm.backend.limits import Cut, Limits, cut, most_running, never_starts, read_limits, room, taking
from harness.slurm.backend.partitions import gpus_in, minutes
from harness.slurm.clusters import Cluster

CONFIG = """\
Configuration data as of 2026-11-28T07:27:44
AccountingStorageEnforce = associations,limits,qos
AccountingStorageHost   = localhost
ClusterName             = Test
MaxArraySize            = 50
MaxJobCount             = 500
"""


def partition(name: str, **changes: str) -> str:
    values = {
        **{"AllowGroups": "ALL", "AllowAccounts": "ALL", "AllowQos": "ALL", "Default": "NO", "QoS": "N/A"},
        **{"DefaultTime": "NONE", "MaxNodes": "UNLIMITED", "MaxTime": "UNLIMITED", "MaxCPUsPerNode": "UNLIMITED"},
        **{"State": "UP", "JobDefaults": "(null)", "TRES": "cpu=16,mem=100000M,node=1,billing=16,gres/gpu=4"},
        **changes,
    }
    return f"PartitionName={name} {' '.join(f'{key}={value}' for key, value in values.items())}\n"


PARTITIONS = (
    partition("main", Default="YES")
    + partition("short", MaxTime="00:30:00", MaxNodes="1", AllowQos="normal,high", MaxCPUsPerNode="8")
    + partition("closed", State="DOWN")
    + partition("rich", AllowAccounts="gold", QoS="part")
    + partition("picky", DenyQos="normal", DenyAccounts="gold")
)
SINFO = """\
main*|up|infinite|2|idle|gpu:4|16|100000
main*|up|infinite|1|drain|gpu:8|64|100000
short|up|30:00|1|idle|gpu:4|16|100000
closed|down|infinite|1|idle|gpu:4|16|100000
rich|up|infinite|1|mix-|gpu:a100:2(S:0),nvme:1|16|100000
picky|up|infinite|1|idle|(null)|16|100000
"""
USER = """\
sub|test|gold||high|high,normal,part|||
sub|test|sub||normal|high,normal|25|5|
sub|test|poor||normal|normal|10||1-00:00:00
sub|elsewhere|sub||normal|normal|1|1|
"""
QOS = """\
normal||||||||
high|PartitionTimeLimit|10:00:00|8||20|3||
part||||30||||
"""
COUNTS = """\
Current Association Manager state
Association Records
ClusterName=test Account=root UserName= Partition= ID=1 ParentAccount= Lft=1 GrpJobs=N(0) GrpSubmitJobs=N(96) MaxJobs=
ClusterName=test Account=silver UserName= Partition= ID=3 ParentAccount=root(1) GrpJobs=N(0) GrpSubmitJobs=100(90)
ClusterName=test Account=sub UserName= Partition= ID=4 ParentAccount=silver(3) GrpJobs=60(1) GrpSubmitJobs=N(6)
ClusterName=test Account=sub UserName=me(70) Partition= GrpSubmitJobs=N(6) MaxJobs=5(1) MaxSubmitJobs=25(6)
ClusterName=test Account=sub UserName=you(71) Partition= ParentAccount= GrpSubmitJobs=N(84) MaxSubmitJobs=200(84)
QOS Records
QOS=normal(1) GrpJobs=N(0) GrpSubmitJobs=N(6) Account Limits= sub={MaxJobsPA=N(0) MaxSubmitJobsPA=N(6)} User Limits= \
70={MaxJobsPU=N(1) MaxSubmitJobsPU=N(6)}
QOS=high(2) GrpJobs=N(2) GrpSubmitJobs=20(17) Account Limits= gold={MaxJobsPA=N(2) MaxSubmitJobsPA=N(2)} User Limits= \
70={MaxJobsPU=3(0) MaxSubmitJobsPU=8(1)} 71={MaxJobsPU=3(2) MaxSubmitJobsPU=8(8)}
QOS=part(3) GrpJobs=N(0) GrpSubmitJobs=N(0) Account Limits= gold={MaxJobsPA=N(0) MaxSubmitJobsPA=30(12)} User Limits=
"""


@dataclass(frozen=True)
class Shape:
    nodes: int = 1
    tasks_per_node: int = 1
    on_gpus: bool = False
    cpus_per_task: int = 1
    memory_gb: float | None = None


def asked(**changes: str) -> Callable[..., str]:
    """A Slurm that prints these texts. changes: by text, what it prints instead."""
    texts = {"config": CONFIG, "partition": PARTITIONS, "sinfo": SINFO, "user": USER, "qos": QOS, "assoc_mgr": COUNTS}
    texts |= changes

    def text(program: str, *arguments: str) -> str:
        return texts[next(name for name in texts if name in (program, *arguments))]

    return text


def limits(**changes: str) -> Limits:
    return read_limits(asked(**changes), "me")


def cluster(**changes: Any) -> Cluster:
    return msgspec.convert({"name": "c", "title": "t", "time_minutes": 20, **changes}, Cluster)


def test_cut_holds_back_what_a_user_may_not_submit() -> None:
    # Account sub: 25 for oneself, 6 are there. Above it silver has 100 for all, of which 90 are there.
    found = cut(12, cluster(), limits(), queued=3)
    assert (found.sizes, found.held) == ((10,), 2)
    assert found.why == (
        "account silver lets all its users have 100 jobs in the queue, 90 are there: 10 submitted, 2 held back; "
        "the same command, or --stay, submits them"
    )
    assert cut(10, cluster(), limits(), queued=3) == Cut((10,))


def test_cut_counts_what_was_submitted_since() -> None:
    assert cut(12, cluster(), limits(), queued=3, added=4).sizes == (6,)
    assert cut(12, cluster(), limits(), queued=3, added=40) == Cut(
        (), 12, cut(12, cluster(), limits(), queued=3, added=40).why
    )


def test_cut_of_an_association_where_no_qos_sets_the_limit() -> None:
    found = cut(30, cluster(), limits(assoc_mgr=""), queued=15)
    assert (found.sizes, found.held) == ((10,), 20)
    assert found.why.startswith("account sub lets you have 25 jobs in the queue, 15 are there: 10 submitted")


@pytest.mark.parametrize(
    ("changes", "free", "who"),
    [
        # The QOS's limits go before the account's: 8 for oneself, 1 is there; 20 for all, 17 are.
        ({"account": "gold"}, 3, "QOS high lets all its users together have 20"),
        ({"account": "sub", "qos": "high"}, 3, "QOS high lets all its users together have 20"),
        ({"account": "gold", "qos": "part"}, 18, "QOS part lets account gold have 30"),
        # The partition's QOS goes before the job's.
        ({"account": "gold", "qos": "normal", "partition": "rich"}, 18, "QOS part lets account gold have 30"),
        ({"account": "poor"}, 7, "account poor lets you have 10 jobs in the queue, 3 are there"),
    ],
)
def test_the_first_limit_of_a_kind_counts(changes: dict[str, Any], free: int, who: str) -> None:
    assert room(cluster(**changes), limits(), queued=3) == free
    assert cut(400, cluster(**changes), limits(), queued=3).why.startswith(who)


def test_a_qos_may_go_before_the_partitions() -> None:
    qos = QOS.replace("normal||||", "normal|OverPartQOS|||7")
    wanted = cluster(account="gold", qos="normal", partition="rich")
    assert room(wanted, limits(qos=qos), queued=2) == 5  # of 7 in this account, not of 30


def test_a_qos_goes_before_the_account_for_oneself_and_for_all() -> None:
    of_user = limits(qos=QOS.replace("normal||||", "normal|||40|"), assoc_mgr="")
    assert room(cluster(), of_user, queued=0) == 40  # the account's 25 do not count
    of_all = limits(qos=QOS.replace("normal|||||", "normal|||||1000"))
    assert room(cluster(), of_all, queued=0) == 19  # of 25, and silver's 100 do not count


@pytest.mark.parametrize("word", ["limits", "safe", "all"])
def test_each_word_by_which_slurm_enforces_limits(word: str) -> None:
    known = limits(config=CONFIG.replace("associations,limits,qos", f"associations,{word}"))
    assert room(cluster(), known, queued=0) == 10


def test_a_qos_is_refused_only_where_slurm_holds_users_to_theirs() -> None:
    known = limits(config=CONFIG.replace("associations,limits,qos", "associations,limits"))
    assert never_starts(cluster(qos="part"), Shape(), known) == []


def test_most_running() -> None:
    assert most_running(cluster(), limits()) == 5
    assert most_running(cluster(account="gold"), limits()) == 3
    assert most_running(cluster(account="poor"), limits()) is None


@pytest.mark.parametrize(("num_runs", "sizes"), [(0, ()), (1, (1,)), (50, (50,)), (51, (50, 1)), (120, (50, 50, 20))])
def test_arrays_are_cut_to_what_an_array_may_have(num_runs: int, sizes: tuple[int, ...]) -> None:
    config = CONFIG.replace("associations,limits,qos", "none")
    assert cut(num_runs, cluster(), limits(config=config), queued=0) == Cut(sizes)


def test_without_arrays_each_run_is_a_job() -> None:
    config = CONFIG.replace("associations,limits,qos", "none").replace("= 50\n", "= 1\n")
    assert cut(3, cluster(), limits(config=config), queued=0).sizes == (1, 1, 1)


def test_the_whole_slurms_limit_counts_where_there_are_no_accounts() -> None:
    config = CONFIG.replace("associations,limits,qos", "none")
    found = cut(500, cluster(), limits(config=config), queued=20)
    assert (sum(found.sizes), found.held) == (480, 20)
    assert "MaxJobCount" in found.why


def test_limits_that_slurm_does_not_enforce_hold_nothing_back() -> None:
    config = CONFIG.replace("associations,limits,qos", "associations")
    assert cut(60, cluster(), limits(config=config), queued=0) == Cut((50, 10))
    assert never_starts(cluster(time_minutes=700, qos="high"), Shape(), limits(config=config)) == []


def test_accounts_are_not_asked_for_where_slurm_enforces_none() -> None:
    def text(program: str, *arguments: str) -> str:
        assert program != "sacctmgr"
        assert "assoc_mgr" not in arguments
        return asked(config=CONFIG.replace("associations,limits,qos", "none"))(program, *arguments)

    assert read_limits(text, "me").max_array == 50


def test_nothing_is_held_back_where_nothing_is_known() -> None:
    unknown = read_limits(lambda *_: "", "me")
    assert unknown == Limits()
    assert cut(70_000, cluster(), unknown, queued=5) == Cut((70_000,))
    assert never_starts(cluster(partition="x", qos="y", account="z"), Shape(nodes=99), unknown) == []
    assert room(cluster(), unknown, queued=5) is None


def test_another_clusters_associations_do_not_count() -> None:
    assert [item.account for item in limits().accounts.associations] == ["gold", "sub", "poor"]


def test_an_association_of_one_partition_goes_first() -> None:
    user = USER + "sub|test|sub|short|high|high|2||\n"
    assert room(cluster(partition="short"), limits(user=user, qos="high||||||||"), queued=0) == 2
    assert room(cluster(partition="main"), limits(user=user, qos="high||||||||", assoc_mgr=""), queued=0) == 25


@pytest.mark.parametrize(
    ("changes", "shape", "said"),
    [
        ({}, Shape(), ()),
        ({"partition": "short"}, Shape(), ()),
        (
            {"partition": "short", "time_minutes": 60},
            Shape(),
            ("Partition short allows 30 minutes, the cluster file asks for 60 (time_minutes). Partitions that",),
        ),
        ({"partition": "short", "time_minutes": 60, "qos": "high"}, Shape(), ()),  # its flag PartitionTimeLimit
        (
            {"time_minutes": 601, "qos": "high"},
            Shape(),
            ("QOS high allows 600 minutes, the cluster file asks for 601",),
        ),
        (
            {"time_minutes": 1441, "account": "poor"},
            Shape(),
            ("Account poor allows you 1440 minutes, the cluster file asks for 1441 (time_minutes). No",),
        ),
        ({"partition": "closed"}, Shape(), ("Partition closed is DOWN. Partitions that would take it: main, short.",)),
        ({"partition": "closed,main"}, Shape(), ()),
        ({"partition": "nowhere"}, Shape(), ("There is no partition nowhere. Partitions that would take it: main",)),
        ({"partition": "rich"}, Shape(), ("Partition rich takes no jobs of account sub, only of gold. Par",)),
        ({"partition": "rich", "account": "gold"}, Shape(), ()),
        ({"partition": "picky", "qos": "high"}, Shape(), ()),
        (
            {"partition": "picky", "account": "gold", "qos": "normal"},
            Shape(),
            ("Partition picky takes no jobs of QOS normal. ", "Partition picky takes no jobs of account gold. "),
        ),
        ({"qos": "part"}, Shape(), ("QOS part is none of yours in account sub: high, normal. No partition",)),
        (
            {"account": "other"},
            Shape(),
            ("Account other is none of yours: gold, sub, poor. No partition would take it.",),
        ),
        ({}, Shape(nodes=4), ("Partition main has 3 nodes, a run takes 4. No partition would take it.",)),
        ({}, Shape(nodes=3), ()),  # one of them is down now
        (
            {},
            Shape(tasks_per_node=9, on_gpus=True),
            ("Partition main has 0 nodes with 9 GPUs (the most of a node: 8)",),
        ),
        ({"partition": "rich", "account": "gold"}, Shape(tasks_per_node=2, on_gpus=True), ()),
        ({}, Shape(nodes=2, tasks_per_node=4, cpus_per_task=5), ("Partition main has 1 node with 20 CPUs (the mo",)),
        ({}, Shape(memory_gb=98), ("Partition main has 0 nodes with 100352 MB of memory (the most of a node: 100000",)),
        (
            {"partition": "short"},
            Shape(cpus_per_task=9),
            ("Partition short gives a job 8 CPUs of a node, a run takes 9",),
        ),
    ],
)
def test_never_starts_says_why_and_where_else(changes: dict[str, Any], shape: Shape, said: tuple[str, ...]) -> None:
    found = never_starts(cluster(**changes), shape, limits())
    assert len(found) == len(said)
    assert all(text.startswith(start) for text, start in zip(found, said, strict=True))


def test_the_partition_of_the_fallback_is_looked_at_too() -> None:
    later = {"partition": "short", "after": 2}
    assert never_starts(cluster(fallback=later), Shape(), limits()) == []
    found = never_starts(cluster(fallback=later, time_minutes=40), Shape(), limits())
    assert len(found) == 1
    assert found[0].startswith("As fallback: partition short allows 30 minutes, the cluster file asks for 40")


def test_a_partition_that_allows_one_node() -> None:
    sinfo = SINFO.replace("short|up|30:00|1|", "short|up|30:00|4|")
    found = never_starts(cluster(partition="short"), Shape(nodes=2), limits(sinfo=sinfo))
    assert found == ["Partition short allows a job 1 node, a run takes 2. Partitions that would take it: main."]
    qos = QOS.replace("normal||||", "normal|PartitionMaxNodes|||")
    assert never_starts(cluster(partition="short"), Shape(nodes=2), limits(sinfo=sinfo, qos=qos)) == []


def test_a_qos_of_which_nothing_is_known_may_lift_a_partitions_limit() -> None:
    known = limits(config="", qos="")
    assert never_starts(cluster(partition="short", time_minutes=60, qos="high"), Shape(), known) == []
    assert len(never_starts(cluster(partition="short", time_minutes=60), Shape(), known)) == 1


def test_without_a_default_partition_the_file_must_name_one() -> None:
    found = never_starts(
        cluster(), Shape(), limits(partition=PARTITIONS.replace("Default=YES", "Default=NO"), sinfo="")
    )
    assert found == [
        "Slurm has no default partition and the cluster file names none. Partitions that would take it: main, short."
    ]


def test_partitions_are_known_from_sinfo_alone() -> None:
    known = limits(partition="")
    assert taking(cluster(), Shape(), known) == ["main", "short", "rich", "picky"]
    assert never_starts(cluster(partition="short", time_minutes=31), Shape(), known)[0].startswith(
        "Partition short allo"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1-00:00:00", 1440),
        ("00:30:00", 30),
        ("30:00", 30),
        ("10:00:30", 600.5),
        ("infinite", None),
        ("UNLIMITED", None),
    ],
)
def test_minutes(text: str, expected: float | None) -> None:
    assert minutes(text) == expected


@pytest.mark.parametrize(("gres", "count"), [("(null)", 0), ("gpu", 1), ("gpu:a100:4(S:0-1),nvme:1,gpu:t4:2", 6)])
def test_gpus_in(gres: str, count: int) -> None:
    assert gpus_in(gres) == count
