"""Submissions: what was submitted to Slurm, one file per submission.

A submission is written down before ``sbatch`` is called, and its token is in the job's comment. A crash in between
loses nothing: the next command finds the job by it. Each run is reserved by one submission
(``harness.slurm.reservations``), so that two people who share a runs folder train it once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from msgspec import Struct

from detector.errors import RecordError, SchedulerError
from detector.runs.folder import RunDir
from detector.runs.job import TrainJob
from detector.storage.files import write_json, write_once
from detector.storage.locks import held
from detector.storage.outputs import path_part
from detector.storage.reading import read_json


class Member(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One run of a submission. refs: the rows that it serves. evals: ids of the evaluations that were asked for."""

    train: TrainJob
    refs: tuple[str, ...]
    evals: tuple[str, ...]


class Options(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The options of the command that submitted. Paths are absolute; cluster: a name, or the path of its file."""

    profile: str
    cluster: str
    overrides: tuple[str, ...] = ()
    batch_size: int | None = None
    data: str | None = None
    weights: str | None = None


class Submission(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One job, or one job array for several runs. runs: training ids by array index.

    state: ``submitting`` until the job's id is known; ``refused`` where Slurm did not take it (``message``); ``ended``
    when the job has left the queue, whatever its result. members, options and what follows them: empty in submissions
    of older versions.
    """

    token: str
    cluster: str
    runs: tuple[str, ...]
    time: float  # seconds since the epoch
    code: str  # id of the code snapshot
    state: Literal["submitting", "submitted", "refused", "ended"] = "submitting"
    job_id: str | None = None
    members: tuple[Member, ...] = ()  # by array index
    options: Options | None = None
    slurm: str = ""  # ClusterName of the Slurm that has the job
    conf: str = ""  # its configuration file, where it is not this machine's own Slurm
    user: str = ""  # who submitted
    message: str = ""


def submissions_folder(runs: Path) -> Path:
    """Where submissions are, and what ``transport_folder`` says of each."""
    return runs / "submissions"


def submission_file(runs: Path, token: str) -> Path:
    """The file of one submission."""
    return submissions_folder(runs) / f"{path_part(token, 'token', raises=RecordError)}.json"


def transport_folder(runs: Path, token: str) -> Path:
    """The script, tasks and output of one submission."""
    return submissions_folder(runs) / path_part(token, "token", raises=RecordError)


def run_of(runs: Path, train_id: str) -> RunDir:
    """The folder of a run that a submission lists. Raises RecordError for an id that is no plain name."""
    return RunDir(runs / path_part(train_id, "train_id", raises=RecordError))


def output_file(folder: Path, job: str, rank: int) -> Path:
    """Where a process prints. folder: ``transport_folder``; job: with the array index, if it has one."""
    return folder / f"{path_part(job, 'job id', raises=RecordError)}_{rank}_log.out"


def next_token(runs: Path, content: bytes, used: Collection[str] = ()) -> str:
    """A token for a new submission: a short hash of ``content``, and how often the same was submitted before.

    used: tokens that are taken although they have no file yet.
    """
    digest = hashlib.sha256(content).hexdigest()[:10]
    attempt = 0
    while submission_file(runs, f"{digest}-{attempt}").exists() or f"{digest}-{attempt}" in used:
        attempt += 1
    return f"{digest}-{attempt}"


def read_submissions(runs: Path, *, damaged: Callable[[str], None] | None = None) -> list[Submission]:
    """All of them, oldest first.

    damaged: told of each file that cannot be read, and the others are returned. None: such a file raises RecordError,
    because who submits without knowing what it says may train a run twice.
    """
    found = []
    for path in sorted(submissions_folder(runs).glob("*.json")):
        try:
            found.append(read_json(path, Submission))
        except RecordError as error:
            message = f"{error} What it submitted is in the queue: squeue --me; then move it away."
            if damaged is None:
                raise RecordError(message) from error
            damaged(message)
    return sorted(found, key=lambda item: (item.time, item.token))


def write_submission(runs: Path, submission: Submission) -> None:
    """Write the file of a submission."""
    write_json(submission_file(runs, submission.token), submission)


def register(runs: Path, submission: Submission) -> None:
    """Write the file of a new submission. Raises SchedulerError where it exists: another command submits the same."""
    if not write_once(submission_file(runs, submission.token), submission):
        raise SchedulerError("Another command submits the same runs at this moment. Run this one again.")


def submission_lock(runs: Path) -> AbstractContextManager[None]:
    """A lock that a command holds while it looks at the queue and reserves runs."""
    return held(submissions_folder(runs) / ".lock")
