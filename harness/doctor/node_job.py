"""The one short job of ``harness doctor --cluster``: submitted as runs are, waited for, and cancelled if need be."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from detector.errors import RecordError, SchedulerError
from detector.storage.files import read_json, write_json
from detector.worker.requeue import job_fields
from harness.code.snapshot import take_snapshot
from harness.doctor.machine import PACKAGES
from harness.doctor.node import NodeCheck, NodeCheckFolder, NodeReport, Word
from harness.slurm.clusters import Cluster
from harness.slurm.commands import WAITING, QueuedJob, cancel_by_name, read_queue
from harness.slurm.script import Shape, parameters
from harness.slurm.submissions import PREFIX
from harness.slurm.submit import NoSlurm, call_sbatch, refusal

LIMIT_MINUTES = 10
PATIENCE_SECONDS = 180.0  # of processes for each other: a node reads torch for the first time in minutes
SIGNAL_DELAY_SECONDS = 30
POLL_SECONDS = 0.5
FIRST_LOOK_SECONDS = 1.0  # between looks at the queue; every look takes a little longer to come
LONGEST_LOOK_SECONDS = 15.0
LATE_SECONDS = 60.0  # by which files of a job that ended well may be seen late
SHORT_SECONDS = 5.0  # and those of one that did not, some of which will never come
GOING_SECONDS = 30.0  # for a job to end when its processes are through
OVERTIME_SECONDS = 120.0  # after which a job that Slurm should have ended is given up
LAST_LINES = 12
FIRST_TO_FAIL = re.compile(r"^srun: error: \S+: tasks? (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class NodeCheckJob:
    """A submitted job. ranks: its processes."""

    id: str
    name: str
    folder: NodeCheckFolder
    ranks: int
    limit_minutes: int
    nonce: str


@dataclass
class Watched:
    """What came of a job. seen: when the command first saw each report, by its own clock, in seconds since the epoch.

    problem: why not every process is through; empty where all are.
    """

    reports: dict[int, NodeReport] = field(default_factory=dict)
    seen: dict[int, float] = field(default_factory=dict)
    problem: str = ""


def new_token() -> str:
    """Of one check; no other has it."""
    return f"doctor-{secrets.token_hex(4)}"


def check_folder(runs: Path, token: str) -> NodeCheckFolder:
    """Where a check's files are: removed after one that found nothing wrong."""
    return NodeCheckFolder(runs / "doctor" / token)


def submit_check(cluster: Cluster, shape: Shape, data: Path | None, *, runs: Path, token: str) -> NodeCheckJob:
    """Hand the job to Slurm as runs are, but for a short time and once. Raises SchedulerError where it is refused."""
    short = replace(
        cluster,
        time_minutes=min(LIMIT_MINUTES, cluster.time_minutes),
        signal_delay_seconds=min(SIGNAL_DELAY_SECONDS, cluster.signal_delay_seconds),
        max_requeues=0,
    )
    folder = check_folder(runs, token)
    code = take_snapshot(runs)
    name, nonce = f"{PREFIX}{token}", secrets.token_hex(8)
    check = NodeCheck(
        folder=str(folder.root),
        nonce=nonce,
        code=str(code),
        on_gpus=shape.on_gpus,
        data=None if data is None else str(data.absolute()),
        packages=PACKAGES,
        requeues=cluster.max_requeues > 0,
        patience=min(PATIENCE_SECONDS, 60 * short.time_minutes / 4),
    )
    write_json(folder.word, Word(nonce, time.time()))
    options = parameters(short, shape, token=token, code=code, folder=folder.root, is_run=False)
    try:
        job_id = call_sbatch([check], short, options, folder.root)
    except NoSlurm:
        raise
    except SchedulerError as error:
        cancel_by_name(name)  # sbatch may have lost the answer and not the job
        raise SchedulerError(refusal(name, error, cluster)) from error
    except KeyboardInterrupt:
        cancel_by_name(name)
        raise
    return NodeCheckJob(job_id, name, folder, shape.tasks, short.time_minutes, nonce)


def watch(job: NodeCheckJob, *, wait_seconds: float, say: Callable[[str], None]) -> Watched:
    """Wait until all processes are through, or the job has ended, or waits or runs too long (then it is cancelled)."""
    watched = Watched()
    look = _Looks(job, say)
    submitted = time.monotonic()
    started: float | None = None
    while not _collect(job, watched):
        here = look.now()
        now = time.monotonic()
        if here is None:
            watched.problem = _after_the_end(job, watched)
            break
        if here.state in WAITING:
            if now - submitted > wait_seconds:
                watched.problem = (
                    f"waited longer than {wait_seconds / 60:g} minutes (--wait) and was cancelled: {_state(here)}"
                )
        else:
            started = started or now
            if now - started > 60 * job.limit_minutes + OVERTIME_SECONDS:
                watched.problem = f"did not end within its {job.limit_minutes} minutes and was cancelled"
        if watched.problem:
            cancel_by_name(job.name)
            break
        time.sleep(POLL_SECONDS)
    else:
        _let_go(job)
    return watched


class _Looks:
    """Looks at the queue, seldomer and seldomer, and says what changed; keeps the time that the nodes compare."""

    def __init__(self, job: NodeCheckJob, say: Callable[[str], None]) -> None:
        self.job = job
        self.say = say
        self.pause = FIRST_LOOK_SECONDS
        self.next = 0.0
        self.said = ""
        # What sbatch took may not be in the queue's answer at once.
        self.last: QueuedJob | None = QueuedJob(job.id, "PENDING", "None", job.name)

    def now(self) -> QueuedJob | None:
        """The job as last seen; None where the queue no longer has it. A queue that does not answer changes nothing."""
        if time.monotonic() < self.next:
            return self.last
        write_json(self.job.folder.word, Word(self.job.nonce, time.time()))
        try:
            jobs = [item for item in read_queue([self.job.name]) if item.state != "COMPLETING"]
            self.last = jobs[0] if jobs else None
            text = f"job {self.job.id}: {_state(self.last)}" if self.last else ""
        except SchedulerError:
            text = f"job {self.job.id}: squeue does not answer; trying again"
        if text not in ("", self.said):
            self.say(text)
            self.said = text
        self.next = time.monotonic() + self.pause
        self.pause = min(1.3 * self.pause, LONGEST_LOOK_SECONDS)
        return self.last


def _state(job: QueuedJob) -> str:
    reason = f" ({job.reason})" if job.reason not in ("", "None") else ""
    return f"{job.state.lower()}{reason}"


def _collect(job: NodeCheckJob, watched: Watched) -> bool:
    """Read the reports anew; whether all processes are through."""
    os.listdir(job.folder.root)  # network file systems remember for a while that a file was not there
    for rank in range(job.ranks):
        path = job.folder.report(rank)
        try:
            if path.exists():
                watched.reports[rank] = read_json(path, NodeReport)
                watched.seen.setdefault(rank, time.time())
        except RecordError:  # as rarely as a network file system replaces a file that is being read
            continue
    return len(watched.reports) == job.ranks and not any(report.doing for report in watched.reports.values())


def _after_the_end(job: NodeCheckJob, watched: Watched) -> str:
    """Why the job left processes that are not through; empty where their files only came late."""
    state, how = _how_it_ended(job)
    late = time.monotonic() + (LATE_SECONDS if state == "COMPLETED" else SHORT_SECONDS)
    while not _collect(job, watched):
        if time.monotonic() > late:
            break
        time.sleep(POLL_SECONDS)
    else:
        return ""
    through = sum(not report.doing for report in watched.reports.values())
    lines = [f"{how}; {through} of {job.ranks} processes came to the end of the checks"]
    for rank in range(job.ranks):
        report = watched.reports.get(rank)
        if report is None:
            lines.append(f"rank {rank} left no word")
        elif report.doing:
            lines.append(f"rank {rank} ({report.node}) was at: {report.doing}")
    return "\n".join([*lines, *_last_words(job)])


def _how_it_ended(job: NodeCheckJob) -> tuple[str, str]:
    """The state in Slurm's word, empty where it is forgotten; and in a sentence."""
    late = time.monotonic() + GOING_SECONDS
    # While its nodes are cleared Slurm does not say how it ended.
    while (fields := job_fields(job.id)).get("JobState") == "COMPLETING" and time.monotonic() < late:
        time.sleep(FIRST_LOOK_SECONDS)
    state = fields.get("JobState", "")
    if not state:
        return "", "ended"
    reason = fields.get("Reason", "None")
    why = "" if reason == "None" else f" ({reason})"
    return state, f"ended as {state}{why}, exit code {fields.get('ExitCode')}"


def _last_words(job: NodeCheckJob) -> list[str]:
    """The end of what the first process that failed printed, and of rank 0 and the job's script, which share a file."""
    printed = {0: _printed(job, 0)}
    failed = FIRST_TO_FAIL.search(printed[0])
    if failed and int(failed[1]) < job.ranks:
        printed = {int(failed[1]): _printed(job, int(failed[1]))} | printed
    lines = list[str]()
    for rank, text in printed.items():
        if last := [line.rstrip() for line in text.splitlines() if line.strip()][-LAST_LINES:]:
            lines += [f"the end of {_output(job, rank)}:", *(f"  {line}" for line in last)]
    return lines or [f"it printed nothing in {job.folder.root}: is HARNESS_RUNS on a disk that the nodes share?"]


def _printed(job: NodeCheckJob, rank: int) -> str:
    path = _output(job, rank)
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _output(job: NodeCheckJob, rank: int) -> Path:
    return job.folder.root / f"{job.id}_{rank}_log.out"


def _let_go(job: NodeCheckJob) -> None:
    """Wait until the job is out of the queue, so that nobody writes into its folder any more."""
    end = time.monotonic() + GOING_SECONDS
    while time.monotonic() < end:
        try:
            if not [item for item in read_queue([job.name]) if item.state != "COMPLETING"]:
                return
        except SchedulerError:
            pass
        time.sleep(FIRST_LOOK_SECONDS)
    cancel_by_name(job.name)
