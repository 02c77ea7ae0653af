"""What sinfo's lines mean for a cluster file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from harness.doctor.partitions import partition_findings
from harness.slurm.backend.accounts import Accounts, Association
from harness.slurm.backend.limits import Limits
from harness.slurm.backend.partitions import parse_partitions
from harness.slurm.clusters import Cluster

LINES = """\
main*|up|1-00:00:00|3|idle|gpu:a100:4(S:0,1),nvme:1
main*|up|1-00:00:00|1|down*|gpu:a100:4(S:0,1)
cpu|up|infinite|6|alloc|(null)
mixed|up|30:00|1|mix#|gpu:v100:2,gpu:t4:1
mixed|up|30:00|2|idle~|gpu
closed|down|infinite|2|idle|(null)
broken|up|infinite|1|drain|gpu:8
broken|up|infinite|1|idle*|gpu:8
broken|up|infinite|1|mix|gpu:8
"""
# By finding, what must be said.
Expected = dict[str, tuple[str, str]]


@dataclass(frozen=True)
class Job:
    """The job of the check."""

    nodes: int
    tasks_per_node: int = 1
    on_gpus: bool = False
    cpus_per_task: int = 1
    memory_gb: float | None = None


def found(nodes: int = 2, *, sinfo: str = LINES, limits: Limits | None = None, **changes: Any) -> Expected:
    values = {"name": "c", "title": "t", "time_minutes": 60, "nodes": nodes, **changes}
    known = Limits(partitions=parse_partitions("", sinfo)) if limits is None else limits
    findings = partition_findings(msgspec.convert(values, Cluster), Job(nodes), known)
    return {finding.name: (finding.state, finding.text) for finding in findings}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"gpus_per_node": 4},
            {
                "partition": ("ok", "main (Slurm's default) is up"),
                "time limit": ("ok", "limit 1440 minutes; time_minutes: 60"),
                "nodes up": ("ok", "3 of 4"),
                "GPUs per node": ("ok", "4 in main; gpus_per_node: 4"),
            },
        ),
        ({"partition": "main", "time_minutes": 1440}, {"time limit": ("ok", "limit 1440 minutes; time_minutes: 1440")}),
        ({"partition": "main", "time_minutes": 1441}, {"time limit": ("fail", "main allows 1440 minutes")}),
        ({"partition": "main", "time_minutes": 1441, "qos": "long"}, {"time limit": ("note", "main allows")}),
        ({"partition": "main", "gpus_per_node": 5}, {"GPUs per node": ("fail", "at most 4 in main; gpus_per_node: 5")}),
        ({"partition": "main"}, {"GPUs per node": ("note", "gpus_per_node: 0, so runs use CPUs alone")}),
        (
            {"partition": "cpu"},
            {
                "partition": ("ok", "cpu is up"),
                "time limit": ("ok", "no limit"),
                "nodes up": ("ok", "6 of 6"),
                "GPUs per node": ("ok", "0 in cpu"),
            },
        ),
        # Nodes that are asleep wake up for a job; of two kinds of nodes the one with more GPUs counts.
        (
            {"partition": "mixed", "time_minutes": 30},
            {
                "time limit": ("ok", "limit 30 minutes"),
                "nodes up": ("ok", "3 of 3"),
                "GPUs per node": ("note", "3 in mixed"),
            },
        ),
        ({"partition": "closed"}, {"partition": ("fail", "closed is down")}),
        ({"partition": "broken"}, {"nodes up": ("fail", "1 of 3 (1 drain, 1 idle*, 1 mix); the job needs 2")}),
        ({"partition": "nowhere"}, {"partition": ("fail", "no 'nowhere'. Known: main, cpu, mixed, closed, broken.")}),
    ],
)
def test_partition_findings_compare_the_file_with_sinfo(changes: dict[str, Any], expected: Expected) -> None:
    findings = found(**changes)
    for name, (state, text) in expected.items():
        assert findings[name][0] == state
        assert text in findings[name][1]


def test_partition_findings_look_at_each_of_several() -> None:
    values = {"name": "c", "title": "t", "time_minutes": 60, "partition": "main,nowhere,cpu"}
    limits = Limits(partitions=parse_partitions("", LINES))
    findings = partition_findings(msgspec.convert(values, Cluster), Job(1), limits)
    assert [finding.state for finding in findings if finding.name == "partition"] == ["ok", "fail", "ok"]


def test_partition_findings_without_a_default_ask_for_a_name() -> None:
    state, text = found(sinfo=LINES.replace("main*", "main"))["partition"]
    assert state == "fail"
    assert "Set 'partition'" in text


def test_partition_findings_are_a_note_where_nothing_is_known() -> None:
    assert found(sinfo="") == {"partition": ("note", "not checked: neither sinfo nor scontrol says which there are")}


def test_partition_findings_name_the_partitions_that_would_do() -> None:
    assert found(partition="closed")["partitions"] == ("note", "such jobs could start in: main, cpu")
    assert "partitions" not in found(partition="main")


def test_partition_findings_say_what_one_may_not_use_and_how_much_one_may_submit() -> None:
    accounts = Accounts(
        default_account="lab",
        associations=(Association("lab", "", "normal", ("normal",), None, {"MaxSubmitJobs": 40, "MaxJobs": 3}),),
        there={("user in lab:", "MaxSubmitJobs"): 6},
    )
    limits = Limits(
        max_array=1001,
        enforced=("associations", "limits", "qos"),
        partitions=parse_partitions("PartitionName=main Default=YES State=UP AllowQos=high", LINES),
        accounts=accounts,
    )
    findings = found(limits=limits)
    assert findings["account and QOS"] == ("fail", "partition main takes no jobs of QOS normal, only of high")
    text = "arrays of at most 1001; room for 34 more jobs; 3 run at once (parallel: 256)"
    assert findings["limits"] == ("ok", text)
