"""What was handed to Slurm: a file a submission, a claim a run, and what the queue says of them.

A submission is written down before ``sbatch`` is called, and its job carries its token as its name. So a crash in
between loses nothing: the next command finds the job by that name. One run is reserved by one submission, so that two
people on one runs folder train it once.
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from msgspec import Struct

from detector.errors import SchedulerError
from detector.storage.files import read_json, write_json, write_once
from detector.storage.locks import held

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
    if not write_once(submission_file(runs, submission.token), submission):
        raise SchedulerError("Another command submits the same runs at this moment. Run this one again.")


def one_at_a_time(runs: Path) -> AbstractContextManager[None]:
    """Held while a command looks at what is queued and reserves the rest."""
    return held(submissions_folder(runs) / ".lock")
