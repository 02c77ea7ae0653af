"""``harness doctor --cluster`` without a Slurm: findings of given reports, and programs that a test writes."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from harness.cli import app
from harness.doctor import cluster as cluster_doctor
from harness.doctor import node_job
from harness.doctor.cluster import check_shape, report_findings
from harness.doctor.machine import LIBRARIES, Finding
from harness.doctor.node import Check, NodeReport
from harness.doctor.node_checks import installed
from harness.doctor.node_job import JobResult
from harness.registry.declarations import Execution
from harness.slurm.backend.slurm import Slurm
from harness.slurm.clusters import Cluster
from tests.command import error
from tests.squeue import Programs, squeue_line

NOW = 1_000_000.0
CLUSTER = "name: mine\ntitle: a test\ntime_minutes: 60\npartition: main\nnodes: 2\n"
# What the job printed goes into the folder of the check.
SBATCH = """
if [ "$1" = --version ]; then echo slurm 1.2; exit; fi
cat >{here}/script
sh {here}/job {here}/runs/doctor/doctor-0 || exit 1
echo 7
"""
ENDED = "JobId=7 JobState=FAILED Reason=NonZeroExitCode ExitCode=9:0"


def report(rank: int, node: str, *checks: tuple[str, str, str], **changes: Any) -> NodeReport:
    values = {
        **{
            "rank": rank,
            "node": node,
            "marker_time": NOW - 1,
            "time": NOW,
            "doing": "",
            "versions": installed(LIBRARIES),
        },
        **changes,
    }
    return msgspec.convert({**values, "checks": [Check(*check) for check in checks]}, NodeReport)  # type: ignore[arg-type]


def findings_of(*reports: NodeReport) -> dict[str, list[tuple[str, str]]]:
    """By name, what is said of it; each report was seen two seconds after NOW."""
    result = JobResult({item.rank: item for item in reports}, {item.rank: NOW + 2 for item in reports})
    found: dict[str, list[tuple[str, str]]] = {}
    for finding in report_findings(result):
        found.setdefault(finding.name, []).append((finding.state, finding.text))
    return found


def test_report_findings_say_once_what_all_processes_say() -> None:
    found = findings_of(*(report(rank, "n1", ("torch", "ok", "2.0")) for rank in range(3)))
    assert found["torch"] == [("ok", "2.0")]
    assert found["versions"] == [("ok", "as here")]


def test_report_findings_name_whole_nodes_and_single_ranks_and_begin_with_the_worst() -> None:
    good, bad = ("GPUs", "ok", "sees 2"), ("GPUs", "fail", "sees none")
    found = findings_of(report(0, "n1", good), report(1, "n1", bad), report(2, "n2", good), report(3, "n2", good))
    assert found["GPUs"] == [("fail", "n1 (rank 1): sees none"), ("ok", "n1 (rank 0), n2: sees 2")]


def test_report_findings_keep_the_order_of_the_checks_also_where_a_process_came_not_far() -> None:
    reports = (report(0, "n1", ("a", "ok", "x")), report(1, "n2", ("a", "ok", "x"), ("b", "ok", "y")))
    assert list(findings_of(*reports)) == ["a", "versions", "b", "clocks"]
    assert findings_of(*reports)["b"] == [("ok", "n2: y")]


def test_report_findings_note_versions_that_are_others_than_here() -> None:
    there = {**installed(LIBRARIES), "numpy": "0.1"}
    found = findings_of(report(0, "n1"), report(1, "n2", versions=there))
    state, text = found["versions"][0]
    assert state == "note"
    assert text == f"n2: numpy 0.1 (here {installed(LIBRARIES)['numpy']})"


@pytest.mark.parametrize(
    ("marker_time", "time", "expected"),
    [
        (NOW - 1, NOW, ("ok", "(to 2 s)")),
        (NOW, NOW + 32, ("ok", "(to 32 s)")),  # 30 s after it was seen, which is not more than 30
        (NOW, NOW + 33, ("note", "that of n1 is at least 31 s ahead of this machine's")),
        (NOW, NOW - 31, ("note", "that of n1 is at least 31 s behind this machine's")),
        (0.0, NOW, ("ok", "(to 2 s)")),  # the marker could not be read, which another finding says
    ],
)
def test_report_findings_compare_clocks_by_what_must_have_come_first(
    marker_time: float, time: float, expected: tuple[str, str]
) -> None:
    ((state, text),) = findings_of(report(0, "n1", marker_time=marker_time, time=time))["clocks"]
    assert state == expected[0]
    assert expected[1] in text


def test_report_findings_of_no_report_are_none() -> None:
    assert report_findings(JobResult(problem="ended")) == []


@pytest.mark.parametrize(
    ("nodes", "gpus", "expected"),
    [(1, 0, (1, 1, False)), (8, 0, (2, 1, False)), (8, 4, (2, 4, True)), (1, 8, (1, 8, True))],
)
def test_check_shape_is_two_nodes_at_most_and_a_process_each_gpu(
    nodes: int, gpus: int, expected: tuple[int, int, bool]
) -> None:
    values = {"name": "c", "title": "t", "time_minutes": 60, "nodes": nodes, "gpus_per_node": gpus}
    values["memory_gb_per_gpu"] = 3
    execution = Execution(
        gpus_per_run="all", threads=4, memory_gb=8, loader_workers=4, checkpoint_every=1, groups_per_forward=1
    )
    shape = check_shape(msgspec.convert(values, Cluster), execution)
    assert (shape.nodes, shape.tasks_per_node, shape.on_gpus) == expected
    assert (shape.cpus_per_task, shape.memory_gb) == (5, 3 * expected[1])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slurm's programs as far as the command calls them, and a cluster file."""
    programs = Programs.install(tmp_path, monkeypatch)
    programs.put("sbatch", SBATCH.format(here=tmp_path))
    programs.put("scontrol", f'case "$*" in "show config") cat {tmp_path}/config;; "show job"*) echo {ENDED};; esac')
    programs.put("sinfo", "echo 'main*|up|infinite|4|idle|(null)'")
    (tmp_path / "job").touch()
    (tmp_path / "mine.yaml").write_text(CLUSTER)
    monkeypatch.setenv("HARNESS_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    monkeypatch.setattr(node_job, "FAILED_LATE_SECONDS", 0.0)
    monkeypatch.setattr(cluster_doctor, "new_token", lambda: "doctor-0")
    return tmp_path


def queue(here: Path, state: str, reason: str) -> None:
    Programs(here).queue(
        squeue_line("7", state, reason, "harness-doctor-0"),
        squeue_line("8", "RUNNING", "None", "harness-doctor-1"),  # the check of another command
    )


def cancelled(here: Path) -> list[str]:
    return Programs(here).calls_of("scancel")


def run(here: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["doctor", "--cluster", str(here / "mine.yaml"), *options], catch_exceptions=False)


def as_findings(result: Result) -> dict[str, Finding]:
    return {item["name"]: Finding(**item) for item in json.loads(result.stdout)}


def test_doctor_without_slurm_says_so_and_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(here / "nothing"))
    result = run(here)
    assert result.exit_code == 1
    assert "There is no Slurm here: sbatch, srun, squeue, scancel, scontrol not on the PATH." in result.stdout
    assert not (here / "runs").exists()


@pytest.mark.parametrize("program", ["squeue", "scontrol"])
def test_doctor_says_that_the_queue_does_not_answer(here: Path, program: str) -> None:
    Programs(here).fail(program, "no controller")
    found = as_findings(run(here, "--json"))
    assert list(found) == ["cluster file", "Slurm"]
    assert found["Slurm"].state == "fail"
    assert "no controller" in found["Slurm"].text


def test_doctor_tells_a_refusal_with_what_sbatch_said(here: Path) -> None:
    (here / "job").write_text("echo sbatch: error: Invalid account >&2; exit 1\n")
    result = run(here, "--json")
    assert result.exit_code == 1
    found = as_findings(result)
    assert found["Slurm"] == Finding("ok", "Slurm", "slurm 1.2, cluster here; squeue answers")
    assert found["sbatch"].state == "fail"
    assert (
        "sbatch refused harness-doctor-0: sbatch: error: Invalid account. Compare the cluster" in found["sbatch"].text
    )
    assert cancelled(here) == []


def test_doctor_cancels_a_job_whose_answer_was_lost(here: Path) -> None:
    (here / "job").write_text("echo Unable to contact slurm controller >&2; exit 1\n")
    queue(here, "PENDING", "Priority")
    assert as_findings(run(here, "--json"))["sbatch"].state == "fail"
    assert cancelled(here) == ["7"]


def test_doctor_asks_for_what_runs_ask_for_but_for_minutes_and_once(here: Path) -> None:
    (here / "mine.yaml").write_text(
        f"{CLUSTER}gpus_per_node: 4\ncpus_per_gpu: 3\naccount: us\nsetup: [module load x]\ncontainer: box\n"
    )
    run(here)
    options = (here / "script").read_text().splitlines()
    said = {line.removeprefix("#SBATCH ") for line in options if line.startswith("#SBATCH")}
    assert {
        *("--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4", "--cpus-per-task=3", "--time=10", "--no-requeue"),
        *(
            "--account=us",
            "--partition=main",
            "--signal=USR2@30",
            "--job-name=harness-doctor-0",
            "--comment=harness-doctor-0",
        ),
    } <= said
    assert "module load x" in options
    assert any(line.endswith(" watched=no") for line in options)  # no run is to be tried again
    assert f"python=(box env --block-signal=USR2 {shlex.quote(sys.executable)})" in options
    assert "worker=(-u -m harness.doctor.node)" in options
    (copy,) = [path for path in (here / "runs" / "code").iterdir() if path.is_dir()]
    assert f"export PYTHONPATH={copy}${{PYTHONPATH:+:$PYTHONPATH}}" in options


def test_doctor_shows_the_last_output_of_a_job_that_died_and_keeps_its_folder(here: Path) -> None:
    (here / "job").write_text(
        'echo "srun: error: n2: task 1: Killed" > "$1/7_0_log.out"; echo "ImportError: no x" > "$1/7_1_log.out"\n'
    )
    result = run(here, "--json")
    assert result.exit_code == 1
    folder = here / "runs" / "doctor" / "doctor-0"
    found = as_findings(result)
    assert found["job"].text.splitlines() == [
        "7 ended as FAILED (NonZeroExitCode), exit code 9:0; 0 of 2 processes finished their checks",
        "rank 0 wrote no report",
        "rank 1 wrote no report",
        f"the end of {folder}/7_1_log.out:",
        "  ImportError: no x",
        f"the end of {folder}/7_0_log.out:",
        "  srun: error: n2: task 1: Killed",
    ]
    assert str(folder) in found["files"].text
    assert folder.is_dir()


def test_doctor_asks_about_the_disk_where_a_dead_job_printed_nothing(here: Path) -> None:
    assert "is HARNESS_RUNS on a disk that the nodes share?" in run(here).stdout


def test_doctor_gives_up_a_job_that_waits_too_long_and_says_why_it_waits(here: Path) -> None:
    queue(here, "PENDING", "Resources")
    result = run(here, "--wait", "0", "--json")
    assert result.exit_code == 1
    assert as_findings(result)["job"].text == (
        "7 waited longer than 0 minutes (--wait) and was cancelled: pending (Resources)"
    )
    assert "job 7: pending (Resources)" in result.stderr
    assert cancelled(here) == ["7"]


def test_doctor_cancels_its_job_when_interrupted(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster_doctor, "wait_for_job", interrupted)
    queue(here, "RUNNING", "None")
    result = run(here)
    assert result.exit_code == 130
    assert cancelled(here) == ["7"]
    assert not (here / "runs" / "doctor" / "doctor-0").exists()


def test_doctor_removes_the_folder_of_a_check_that_found_nothing_wrong(here: Path) -> None:
    reports = [report(rank, f"n{rank + 1}", ("torch", "note", "old")) for rank in (0, 1)]
    for item in reports:
        (here / f"report-{item.rank}.json").write_bytes(msgspec.json.encode(item))
    (here / "job").write_text(f'cp {here}/report-*.json "$1"\n')
    result = run(here, "--json")
    assert result.exit_code == 0, result.output
    found = as_findings(result)
    assert found["job"].text == "7 ran on n1, n2"
    assert found["torch"] == Finding("note", "torch", "old")
    assert "files" not in found
    assert not (here / "runs" / "doctor").exists()


def test_doctor_says_that_a_file_of_one_node_leaves_the_network_untried(here: Path) -> None:
    (here / "mine.yaml").write_text(CLUSTER.replace("nodes: 2", "nodes: 1"))
    (here / "report-0.json").write_bytes(msgspec.json.encode(report(0, "n1")))
    (here / "job").write_text(f'cp {here}/report-*.json "$1"\n')
    found = as_findings(run(here, "--json"))
    assert found["two nodes"].state == "note"
    assert "one node per run (nodes: 1)" in found["two nodes"].text


def test_wait_needs_a_cluster() -> None:
    assert "--wait goes with --cluster NAME" in error("doctor", "--wait", "3")


def test_how_a_job_ended_is_asked_again_while_its_nodes_are_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    states = ["COMPLETING", "COMPLETING", "FAILED"]
    monkeypatch.setattr(
        Slurm, "fields", lambda *_: {"JobState": states.pop(0), "Reason": "NonZeroExitCode", "ExitCode": "1:0"}
    )
    monkeypatch.setattr(node_job, "FIRST_QUERY_SECONDS", 0.0)
    folder = node_job.NodeCheckFolder(Path("nowhere"))
    job = node_job.NodeCheckJob(id="3", name="n", slurm=Slurm(), folder=folder, ranks=2, limit_minutes=1, nonce="0")
    assert node_job._end_state(job) == ("FAILED", "ended as FAILED (NonZeroExitCode), exit code 1:0")
