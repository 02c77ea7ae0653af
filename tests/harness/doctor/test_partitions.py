"""What sinfo's lines mean for a cluster file, with a program of its name that a test writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.doctor.partitions import partition_findings
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


@pytest.fixture
def sinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "sinfo"
    (tmp_path / "lines").write_text(LINES)
    program.write_text(f"#!/bin/sh\ncat {tmp_path}/lines\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return program


def found(nodes: int = 2, **changes: Any) -> Expected:
    values = {"name": "c", "title": "t", "time_minutes": 60, "nodes": nodes, **changes}
    findings = partition_findings(msgspec.convert(values, Cluster), nodes)
    return {finding.name: (finding.state, finding.text) for finding in findings}


@pytest.mark.usefixtures("sinfo")
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


@pytest.mark.usefixtures("sinfo")
def test_partition_findings_look_at_each_of_several() -> None:
    values = {"name": "c", "title": "t", "time_minutes": 60, "partition": "main,nowhere,cpu"}
    findings = partition_findings(msgspec.convert(values, Cluster), 1)
    assert [finding.state for finding in findings if finding.name == "partition"] == ["ok", "fail", "ok"]


def test_partition_findings_without_a_default_ask_for_a_name(sinfo: Path, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text(LINES.replace("main*", "main"))
    state, text = found()["partition"]
    assert state == "fail"
    assert "Set 'partition'" in text


def test_partition_findings_are_a_note_where_sinfo_does_not_answer(sinfo: Path) -> None:
    sinfo.write_text("#!/bin/sh\necho down >&2; exit 1\n")
    assert found() == {"partition": ("note", "not checked: sinfo failed: down.")}


def test_partition_findings_are_a_note_where_there_is_no_sinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found() == {"partition": ("note", "not checked: sinfo is not on the PATH.")}
