"""The short job of ``harness doctor --cluster``: submitted as runs are, waited for, and cancelled where necessary."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from detector.errors import RecordError, SchedulerError
from detector.storage.files import write_json
from detector.storage.reading import read_json
from harness.code.snapshot import take_snapshot
from harness.doctor.machine import packages
from harness.doctor.node import Marker, NodeCheck, NodeCheckFolder, NodeReport
from harness.slurm.backend.slurm import NoSlurm, QueuedJob, Slurm
from harness.slurm.batch.script import ArrayPlan, Shape, batch_script
from harness.slurm.clusters import Cluster
from harness.slurm.queue import OVER, WAITING
from harness.slurm.submissions import output_file
from harness.slurm.submit import refusal

LIMIT_MINUTES = 10
WAIT_SECONDS = 180.0  # of processes for each other: the first import of torch on a node can take minutes
SIGNAL_DELAY_SECONDS = 30
POLL_SECONDS = 0.5
FIRST_QUERY_SECONDS = 1.0  # between the first two queries of the queue; later ones are further apart
LONGEST_QUERY_SECONDS = 15.0
LATE_SECONDS = 60.0  # how late files may appear of a job that completed
FAILED_LATE_SECONDS = 5.0  # and of one that failed: some of its files will never appear
LEAVING_SECONDS = 30.0  # for a job to leave the queue after its processes are done
OVERTIME_SECONDS = 120.0  # after the time limit, at which Slurm should have ended the job
LAST_LINES = 12
FIRST_FAILED = re.compile(r"^srun: error: \S+: tasks? (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class NodeCheckJob:
    """A submitted job. ranks: how many processes it has."""

    id: str
    name: str  # its token too
    slurm: Slurm
    folder: NodeCheckFolder
    ranks: int
    limit_minutes: int
    nonce: str


@dataclass
class JobResult:
    """The reports of a job, by rank.

    seen: when the command first saw each report, by its own clock, in seconds since the epoch. problem: why some
    process did not finish its checks; empty if all did.
    """

    reports: dict[int, NodeReport] = field(default_factory=dict)
    seen: dict[int, float] = field(default_factory=dict)
    problem: str = ""


def new_token() -> str:
    """A token that no other job has."""
    return f"doctor-{secrets.token_hex(4)}"


def check_folder(runs: Path, token: str) -> NodeCheckFolder:
    """The folder of a job's files. It is removed where nothing failed."""
    return NodeCheckFolder(runs / "doctor" / token)


def submit_check(cluster: Cluster, shape: Shape, data: Path | None, *, runs: Path, token: str) -> NodeCheckJob:
    """Submit the job as runs are submitted, but with a short time limit and without requeueing.

    Raises SchedulerError where Slurm refuses it.
    """
    short = replace(
        cluster,
        time_minutes=min(LIMIT_MINUTES, cluster.time_minutes),
        signal_delay_seconds=min(SIGNAL_DELAY_SECONDS, cluster.signal_delay_seconds),
        max_requeues=0,
    )
    folder = check_folder(runs, token)
    code = take_snapshot(runs)
    nonce = secrets.token_hex(8)
    check = NodeCheck(
        folder=str(folder.root),
        nonce=nonce,
        code=str(code),
        on_gpus=shape.on_gpus,
        data=None if data is None else str(data.absolute()),
        packages=packages(),
        requeues=cluster.max_requeues > 0,
        wait=min(WAIT_SECONDS, 60 * short.time_minutes / 4),
    )
    write_json(folder.marker, Marker(nonce, time.time()))
    write_json(folder.root / "task-0.json", check)
    plan = ArrayPlan(
        token=token,
        cluster=short,
        shape=shape,
        names=(f"harness-{token}",),
        run_folders=(folder.root,),
        folder=folder.root,
        code=code,
        most_at_once=1,
        worker=("-u", "-m", "harness.doctor.node"),
        watched=False,
    )
    slurm = Slurm(cluster.slurm_conf or "")
    try:
        job_id = slurm.submit(batch_script(plan))
    except NoSlurm:
        raise
    except SchedulerError as error:
        cancel_check(slurm, token)  # the answer may be lost although the job was submitted
        raise SchedulerError(refusal(plan.name, str(error), cluster)) from error
    except KeyboardInterrupt:
        cancel_check(slurm, token)
        raise
    return NodeCheckJob(job_id, token, slurm, folder, shape.tasks, short.time_minutes, nonce)


def cancel_check(slurm: Slurm, token: str) -> None:
    """Cancel the job of a check, waiting or running, by its token, which is known before its id is."""
    with suppress(SchedulerError):
        slurm.cancel([job.id for job in slurm.find(token)])


def wait_for_job(job: NodeCheckJob, *, wait_seconds: float, say: Callable[[str], None]) -> JobResult:
    """Wait until all processes are done or the job has ended. One that waits or runs too long is cancelled.

    wait_seconds: how long it may wait in the queue. say: told of each change.
    """
    result = JobResult()
    queue = _QueueQueries(job, say)
    submitted = time.monotonic()
    started: float | None = None
    while not _read_reports(job, result):
        queued = queue.job_now()
        now = time.monotonic()
        if queued is None:
            result.problem = _problem_after_end(job, result)
            break
        if queued.state in WAITING:
            if now - submitted > wait_seconds:
                waited = f"waited longer than {wait_seconds / 60:g} minutes (--wait) and was cancelled"
                result.problem = f"{waited}: {_state_text(queued)}"
        else:
            started = started or now
            if now - started > 60 * job.limit_minutes + OVERTIME_SECONDS:
                result.problem = f"did not end within its {job.limit_minutes} minutes and was cancelled"
        if result.problem:
            cancel_check(job.slurm, job.name)
            break
        time.sleep(POLL_SECONDS)
    else:
        _wait_until_gone(job)
    return result


def in_queue(job: NodeCheckJob) -> list[QueuedJob]:
    """The job, while it waits or runs. Raises SchedulerError."""
    return [item for item in job.slurm.find(job.name) if item.state != "COMPLETING" and item.state not in OVER]


class _QueueQueries:
    """Queries the queue at growing intervals, says what changed, and rewrites the marker, whose time the nodes read."""

    def __init__(self, job: NodeCheckJob, say: Callable[[str], None]) -> None:
        self.job = job
        self.say = say
        self.pause = FIRST_QUERY_SECONDS
        self.next = 0.0
        self.said = ""
        # A new job may not be in the queue's answer at once.
        self.last: QueuedJob | None = QueuedJob(job.id, "PENDING")

    def job_now(self) -> QueuedJob | None:
        """The job as last seen; None where it has left the queue. If the queue does not answer, nothing changes."""
        if time.monotonic() < self.next:
            return self.last
        write_json(self.job.folder.marker, Marker(self.job.nonce, time.time()))
        try:
            jobs = in_queue(self.job)
            self.last = jobs[0] if jobs else None
            text = f"job {self.job.id}: {_state_text(self.last)}" if self.last else ""
        except SchedulerError:
            text = f"job {self.job.id}: squeue does not answer; trying again"
        if text not in ("", self.said):
            self.say(text)
            self.said = text
        self.next = time.monotonic() + self.pause
        self.pause = min(1.3 * self.pause, LONGEST_QUERY_SECONDS)
        return self.last


def _state_text(job: QueuedJob) -> str:
    reason = f" ({job.reason})" if job.reason not in ("", "None") else ""
    return f"{job.state.lower()}{reason}"


def _read_reports(job: NodeCheckJob, result: JobResult) -> bool:
    """Read the reports again; returns whether all processes have finished their checks."""
    os.listdir(job.folder.root)  # or a network file system may go on for a while to say that a file is missing
    for rank in range(job.ranks):
        path = job.folder.report(rank)
        try:
            if path.exists():
                result.reports[rank] = read_json(path, NodeReport)
                result.seen.setdefault(rank, time.time())
        except RecordError:  # rare: a network file system replaced the file while it was read
            continue
    return len(result.reports) == job.ranks and not any(report.doing for report in result.reports.values())


def _problem_after_end(job: NodeCheckJob, result: JobResult) -> str:
    """Why the job ended before all processes had finished; empty if their files only appeared late."""
    state, how = _end_state(job)
    late = time.monotonic() + (LATE_SECONDS if state == "COMPLETED" else FAILED_LATE_SECONDS)
    while not _read_reports(job, result):
        if time.monotonic() > late:
            break
        time.sleep(POLL_SECONDS)
    else:
        return ""
    finished = sum(not report.doing for report in result.reports.values())
    lines = [f"{how}; {finished} of {job.ranks} processes finished their checks"]
    for rank in range(job.ranks):
        report = result.reports.get(rank)
        if report is None:
            lines.append(f"rank {rank} wrote no report")
        elif report.doing:
            lines.append(f"rank {rank} ({report.node}) was at: {report.doing}")
    return "\n".join([*lines, *_last_output(job)])


def _end_state(job: NodeCheckJob) -> tuple[str, str]:
    """The job's final state in Slurm's word, empty where Slurm no longer knows it; and the same in a phrase."""
    late = time.monotonic() + LEAVING_SECONDS
    # Slurm says how a job ended only after its nodes are cleared.
    while (fields := job.slurm.fields(job.id)).get("JobState") == "COMPLETING" and time.monotonic() < late:
        time.sleep(FIRST_QUERY_SECONDS)
    state = fields.get("JobState", "")
    if not state:
        return "", "ended"
    reason = fields.get("Reason", "None")
    why = "" if reason == "None" else f" ({reason})"
    return state, f"ended as {state}{why}, exit code {fields.get('ExitCode')}"


def _last_output(job: NodeCheckJob) -> list[str]:
    """The last lines of the first process that failed, and of rank 0 and the batch script, which share a file."""
    printed = {0: _printed(job, 0)}
    failed = FIRST_FAILED.search(printed[0])
    if failed and int(failed[1]) < job.ranks:
        printed = {int(failed[1]): _printed(job, int(failed[1]))} | printed
    lines = list[str]()
    for rank, text in printed.items():
        if last := [line.rstrip() for line in text.splitlines() if line.strip()][-LAST_LINES:]:
            lines += [f"the end of {output_file(job.folder.root, job.id, rank)}:", *(f"  {line}" for line in last)]
    return lines or [f"nothing was printed into {job.folder.root}: is HARNESS_RUNS on a disk that the nodes share?"]


def _printed(job: NodeCheckJob, rank: int) -> str:
    path = output_file(job.folder.root, job.id, rank)
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _wait_until_gone(job: NodeCheckJob) -> None:
    """Wait until the job has left the queue, so that nothing writes into its folder any more."""
    end = time.monotonic() + LEAVING_SECONDS
    while time.monotonic() < end:
        try:
            if not in_queue(job):
                return
        except SchedulerError:
            pass
        time.sleep(FIRST_QUERY_SECONDS)
    cancel_check(job.slurm, job.name)
