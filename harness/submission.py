"""What was handed to Slurm: a file a submission, a claim a run, and what the queue says of them.

A submission is written down before ``sbatch`` is called, and its job carries its token as its name. So a crash in
between loses nothing: the next command finds the job by that name. One run is claimed by one submission, so that two
people on one runs folder train it once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from detector.errors import SchedulerError
from detector.rundir import RunDir, read_json, write_json

# How long a submission may take from its file to its job in the queue, and a heartbeat be silent.
GRACE_SECONDS = 180.0
SQUEUE_SECONDS = 60.0
# squeue's fields and their widths. Its short options (-o) do not know restarts, its JSON changed between versions.
COLUMNS = {"JobArrayID": 48, "State": 24, "RestartCnt": 16, "Name": 64, "Reason": 160}
PREFIX = "harness-"


class Submission(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One job (an array where it has several runs). ``runs``: training ids by array index.

    state: ``submitting`` until the job's id is known; ``ended`` when the queue no longer has it, however it went.
    """

    token: str
    cluster: str
    runs: tuple[str, ...]
    time: float  # seconds since the epoch
    code: str  # of the snapshot
    state: Literal["submitting", "submitted", "ended"] = "submitting"
    job_id: str | None = None

    @property
    def name(self) -> str:
        """The job's name in the queue."""
        return f"{PREFIX}{self.token}"


class Claim(Struct, frozen=True, forbid_unknown_fields=True):
    """In a run's folder: the submission that trains it."""

    token: str


@dataclass(frozen=True)
class QueuedJob:
    """A line of ``squeue``: one job or one element of an array."""

    id: str
    state: str
    reason: str
    name: str
    restarts: int = 0

    @property
    def base_id(self) -> str:
        """The id without the element's index."""
        return self.id.split("_")[0]

    @property
    def index(self) -> int:
        """Of the array; 0 for a job that is none."""
        return int(self.id.partition("_")[2] or 0)


@dataclass(frozen=True)
class Taken:
    """Why a run must not be submitted now; ``job`` is None where its submission is still on its way to the queue."""

    token: str
    job: QueuedJob | None

    def __str__(self) -> str:
        if self.job is None:
            return "being submitted"
        reason = f" ({self.job.reason})" if self.job.state == "PENDING" else ""
        return f"job {self.job.id}, {self.job.state.lower()}{reason}"


def submissions_folder(runs: Path) -> Path:
    """Submissions, and the launcher's transport files and output, by token."""
    return runs / "submissions"


def submission_file(runs: Path, token: str) -> Path:
    """Where one submission is written down."""
    return submissions_folder(runs) / f"{token}.json"


def transport_folder(runs: Path, token: str) -> Path:
    """Scripts, pickles and the processes' output (``<job id>_<rank>_log.out``) of one submission."""
    return submissions_folder(runs) / token


def next_token(runs: Path, content: bytes) -> str:
    """A short hash of what is submitted, and how often the same was before: known before anything is written."""
    digest = hashlib.sha256(content).hexdigest()[:10]
    attempt = 0
    while submission_file(runs, f"{digest}-{attempt}").exists():
        attempt += 1
    return f"{digest}-{attempt}"


def read_submissions(runs: Path) -> list[Submission]:
    """All of them, oldest first. Raises RecordError for a damaged file."""
    paths = submissions_folder(runs).glob("*.json")
    return sorted((read_json(path, Submission) for path in paths), key=lambda item: (item.time, item.token))


def write_submission(runs: Path, submission: Submission) -> None:
    """Note its present state."""
    write_json(submission_file(runs, submission.token), submission)


def register(runs: Path, submission: Submission) -> None:
    """Write a new submission down. Raises SchedulerError where its token is taken: somebody submits the same now."""
    if not _write_once(submission_file(runs, submission.token), submission, submission.token):
        raise SchedulerError("Another command submits the same runs at this moment. Run this one again.")


def _write_once(path: Path, value: Struct, token: str) -> bool:
    """The file appears whole or not at all, and only once: False where it is there (a hard link, also over NFS)."""
    prepared = path.with_name(f".{path.name}.{token}.{os.getpid()}")
    write_json(prepared, value)
    try:
        os.link(prepared, path)
    except FileExistsError:
        return False
    finally:
        prepared.unlink(missing_ok=True)
    return True


@contextmanager
def one_at_a_time(runs: Path) -> Iterator[None]:
    """Held while a command looks what is queued and claims the rest; the kernel's lock, which ends with the process."""
    folder = submissions_folder(runs)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read_queue(names: Iterable[str]) -> list[QueuedJob]:
    """Jobs of these names that are pending, running or ending. Raises SchedulerError where the queue cannot be read.

    Unknown is not dead: an unreadable queue is an error, never an empty one.
    """
    wanted = set(names)
    if not wanted:
        return []
    fields = ",".join(f"{field}:{width}" for field, width in COLUMNS.items())
    command = ["squeue", "-h", "-r", "-O", fields, f"--name={','.join(sorted(wanted))}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SQUEUE_SECONDS)
    except FileNotFoundError as error:
        raise SchedulerError(
            "There is no Slurm here: squeue is not on the PATH. Run this where jobs are submitted from; "
            "to see what would be submitted: --dry-run."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SchedulerError(f"squeue did not answer within {SQUEUE_SECONDS:.0f} s. Try again later.") from error
    if done.returncode != 0:
        raise SchedulerError(f"squeue failed: {done.stderr.strip() or done.returncode}. Nothing was submitted.")
    jobs = (_queued_job(line) for line in done.stdout.splitlines())
    return [job for job in jobs if job is not None and job.name in wanted]


def _queued_job(line: str) -> QueuedJob | None:
    """One line of ``squeue``, cut at the columns; None for what is none."""
    values, start = dict[str, str](), 0
    for field, width in COLUMNS.items():
        values[field] = line[start : start + width].strip()
        start += width
    if not values["RestartCnt"].isdigit():
        return None
    return QueuedJob(
        values["JobArrayID"], values["State"], values["Reason"], values["Name"], restarts=int(values["RestartCnt"])
    )


def settle(runs: Path, *, now: float | None = None, note: bool = True) -> tuple[dict[str, Taken], list[Submission]]:
    """Compare what was written down with the queue, and note what has changed (unless told not to).

    Returns the runs that are queued or on their way there, and the submissions whose job was found by its name only
    now (the command that submitted it died before it knew the id).
    """
    now = time.time() if now is None else now
    submissions = [item for item in read_submissions(runs) if item.state != "ended"]
    by_name: dict[str, list[QueuedJob]] = {}
    for job in read_queue(item.name for item in submissions):
        by_name.setdefault(job.name, []).append(job)
    taken, adopted = dict[str, Taken](), list[Submission]()
    for item in submissions:
        jobs = by_name.get(item.name, [])
        here = {item.runs[job.index]: Taken(item.token, job) for job in jobs if job.index < len(item.runs)}
        taken |= here
        if jobs and item.state == "submitting":
            adopted.append(replace(item, state="submitted", job_id=jobs[0].base_id))
            if note:
                write_submission(runs, adopted[-1])
        elif not jobs and item.state == "submitting" and now - item.time < GRACE_SECONDS:
            taken |= {run: Taken(item.token, None) for run in item.runs}
            continue
        if not note:
            continue
        if not jobs:
            write_submission(runs, replace(item, state="ended"))
        for run in set(item.runs) - set(here):  # an element that ended frees its run, whatever the others do
            release(RunDir(runs / run), item.token)
    return taken, adopted


def claim_file(run: RunDir) -> Path:
    """Says which submission trains the run."""
    return run.root / "claim.json"


def read_claim(run: RunDir) -> str | None:
    """The token that holds the run, or None."""
    return read_json(claim_file(run), Claim).token if claim_file(run).exists() else None


def claim(run: RunDir, token: str, *, living: set[str]) -> bool:
    """Take the run for a submission; False where another of the ``living`` ones has it.

    A claim whose submission has ended is replaced.
    """
    path = claim_file(run)
    for _ in range(2):
        if _write_once(path, Claim(token), token):
            return True
        holder = read_claim(run)
        if holder == token or holder in living:
            return holder == token
        path.unlink(missing_ok=True)
    return False


def release(run: RunDir, token: str) -> None:
    """Give the run back, if it is this submission's."""
    if read_claim(run) == token:
        claim_file(run).unlink(missing_ok=True)


def is_busy(run: RunDir, *, now: float | None = None) -> bool:
    """Whether somebody trains a run that is not queued: a living process here, or elsewhere by a fresh heartbeat.

    The heartbeat of a job that was submitted from here is a dead one's, since the queue does not have that job.
    """
    if run.is_locked():
        return True
    status = run.read_status()
    if status is None or status.job is not None or status.phase not in ("starting", "training", "evaluating"):
        return False
    return (time.time() if now is None else now) - status.time < GRACE_SECONDS
