"""``harness doctor --cluster``: one short job on its nodes shows whether runs can work on a Slurm cluster."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from detector.errors import SchedulerError
from harness.doctor.machine import Finding, folder_finding, packages
from harness.doctor.node import Check, NodeReport
from harness.doctor.node_checks import installed, links_and_renames, take_lock
from harness.doctor.node_job import JobResult, cancel_check, check_folder, new_token, submit_check, wait_for_job
from harness.doctor.partitions import partition_findings
from harness.folders import runs_folder
from harness.launch.interrupts import terminate_is_interrupt
from harness.planning.data import named_data
from harness.registry.declarations import Execution
from harness.registry.load import Registry
from harness.slurm.backend.limits import read_limits
from harness.slurm.backend.programs import own_name
from harness.slurm.backend.slurm import Slurm
from harness.slurm.batch.script import Shape, shape_with
from harness.slurm.clusters import Cluster

PROGRAMS = ("sbatch", "srun", "squeue", "scancel", "scontrol")
NODES = 2
CLOCK_SECONDS = 30.0  # a run whose heartbeat is some minutes old counts as dead, so clocks must agree better than that
DEFAULT_WAIT_MINUTES = 10.0


def examine_cluster(
    cluster: Cluster, data: Path | None, *, wait_minutes: float, say: Callable[[str], None]
) -> list[Finding]:
    """All findings, in the order in which a new user meets them. An interrupt cancels the job.

    say: told what the command waits for.
    """
    shape = check_shape(cluster, Registry().profile("paper").execution)
    runs, root = runs_folder(), named_data(data)
    findings = [Finding("ok", "cluster file", f"{cluster.name}: {cluster.title}; the job takes {shape}")]
    slurm = Slurm(cluster.slurm_conf or "")
    here = _slurm_here(slurm)
    if here.state == "fail":
        return [*findings, here]
    writable = folder_finding("HARNESS_RUNS", runs)
    limits = read_limits(slurm.text, own_name())
    findings += [here, *partition_findings(cluster, shape, limits), writable]
    if writable.state == "fail":
        return findings
    token = new_token()
    folder = check_folder(runs, token)
    folder.root.mkdir(parents=True)
    with ExitStack() as stack:
        answers = [links_and_renames(folder.root, "command"), take_lock(folder.lock("command"), stack)]
        findings += [
            Finding(state, "runs folder", f"on this machine: {text}") for state, text in answers if state != "ok"
        ]
        if root is None:
            findings.append(Finding("note", "COCO data", "not named (--data or HARNESS_DATA), so not checked"))
        findings += _findings_by_job(cluster, shape, root, runs=runs, token=token, wait_minutes=wait_minutes, say=say)
    return [*findings, *_clean_up(folder.root, findings)]


def check_shape(cluster: Cluster, execution: Execution) -> Shape:
    """Two nodes if runs may take them, with as many processes on each as a run may have."""
    on_gpus = cluster.gpus_per_node > 0
    tasks = cluster.gpus_per_node if on_gpus else 1
    return shape_with(cluster, execution, nodes=min(NODES, cluster.nodes), tasks=tasks, on_gpus=on_gpus)


def _slurm_here(slurm: Slurm) -> Finding:
    """Whether Slurm's programs are on this machine and the queue answers."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        text = f"{', '.join(missing)} not on the PATH. Run this where jobs are submitted from."
        return Finding("fail", "Slurm", f"There is no Slurm here: {text}" if "sbatch" in missing else text)
    try:
        version, name = slurm.version(), slurm.name
        slurm.find("doctor")
    except SchedulerError as error:
        return Finding("fail", "Slurm", str(error))
    return Finding("ok", "Slurm", f"{version}, cluster {name}; squeue answers")


def _findings_by_job(
    cluster: Cluster,
    shape: Shape,
    data: Path | None,
    *,
    runs: Path,
    token: str,
    wait_minutes: float,
    say: Callable[[str], None],
) -> list[Finding]:
    with terminate_is_interrupt():
        try:
            job = submit_check(cluster, shape, data, runs=runs, token=token)
            text = f"accepted job {job.id} ({job.name}), time limit {job.limit_minutes} min"
            result = wait_for_job(job, wait_seconds=60 * wait_minutes, say=say)
        except SchedulerError as error:
            return [Finding("fail", "sbatch", str(error))]
        except KeyboardInterrupt:
            cancel_check(Slurm(cluster.slurm_conf or ""), token)
            shutil.rmtree(check_folder(runs, token).root, ignore_errors=True)
            say(f"Interrupted: job {token} is cancelled.")
            raise
    findings = [Finding("ok", "sbatch", text), _job(job.id, result), *report_findings(result)]
    if cluster.nodes == 1 and not result.problem:
        findings.append(Finding("note", "two nodes", "not tried: the cluster file allows one node per run (nodes: 1)"))
    return findings


def _job(job_id: str, result: JobResult) -> Finding:
    if result.problem:
        return Finding("fail", "job", f"{job_id} {result.problem}")
    nodes = dict.fromkeys(report.node for report in result.reports.values())
    return Finding("ok", "job", f"{job_id} ran on {', '.join(nodes)}")


def report_findings(result: JobResult) -> list[Finding]:
    """One finding per check where all processes agree; else one per answer, the worst first, with who gave it."""
    reports = [report for _, report in sorted(result.reports.items())]
    if not reports:
        return []
    here = installed(packages())
    noted = [(report, check) for report in reports for check in (*report.checks, _versions(report, here))]
    findings = list[Finding]()
    for name in dict.fromkeys(check.name for _, check in noted):
        answers = dict[tuple[str, str], list[NodeReport]]()
        for report, check in noted:
            if check.name == name:
                answers.setdefault((check.state, check.text), []).append(report)
        for state in ("fail", "note", "ok"):
            for (found, text), by in answers.items():
                if found == state:
                    who = "" if len(by) == len(reports) else f"{_who(by, reports)}: "
                    findings.append(Finding(state, name, f"{who}{text}"))
    return [*findings, _clocks(reports, result.seen)]


def _who(some: Sequence[NodeReport], everyone: Sequence[NodeReport]) -> str:
    """Names for some of the processes: a node for all processes on it, else the node and the ranks."""
    names = list[str]()
    for node in dict.fromkeys(report.node for report in some):
        mine = [report.rank for report in some if report.node == node]
        whole = len(mine) == sum(report.node == node for report in everyone)
        names.append(node if whole else f"{node} (rank {', '.join(map(str, mine))})")
    return ", ".join(names)


def _versions(report: NodeReport, here: Mapping[str, str]) -> Check:
    other = [
        f"{name} {there} (here {here.get(name)})" for name, there in report.versions.items() if there != here.get(name)
    ]
    return Check("versions", "note", ", ".join(other)) if other else Check("versions", "ok", "as here")


def _clocks(reports: Sequence[NodeReport], seen: Mapping[int, float]) -> Finding:
    """Compare the nodes' clocks with the command's.

    A process noted its time after the command had written the marker and before the command saw the process's report.
    """
    wrong, width = dict[str, str](), 0.0
    for report in reports:
        ahead = report.time - seen[report.rank]
        behind = report.marker_time - report.time if report.marker_time else 0.0
        width = max(width, -ahead, -behind)
        if max(ahead, behind) > CLOCK_SECONDS:
            by, where = (ahead, "ahead of") if ahead > behind else (behind, "behind")
            wrong[report.node] = f"that of {report.node} is at least {by:.0f} s {where} this machine's"
    if wrong:
        return Finding("note", "clocks", f"{'; '.join(wrong.values())}: status judges running runs by their clocks")
    return Finding("ok", "clocks", f"the nodes' fit this machine's, as far as can be seen (to {math.ceil(width)} s)")


def _clean_up(folder: Path, findings: Sequence[Finding]) -> list[Finding]:
    """Remove the check's folder, unless something failed and its files may show why."""
    if any(finding.state == "fail" for finding in findings):
        return [Finding("note", "files", f"kept for a closer look: {folder}")]
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # other checks
        folder.parent.rmdir()
    return []
