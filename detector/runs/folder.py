"""One folder per run: its paths, its lock and its state. Free of torch.

Nothing here depends on a database or on a lock that outlives a crash: a file is either whole or not there, and the
lock is the kernel's (``flock``), which ends with the process that holds it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from detector.errors import RecordError
from detector.runs.job import TrainJob
from detector.runs.record import Record, misplaced, read_record
from detector.runs.status import Status
from detector.storage.locks import held, is_held, never
from detector.storage.outputs import path_part
from detector.storage.reading import read_bytes, read_json

MOST_STATUS = MOST_JOB = 2**20  # bytes
# In a run's folder until it is done: its inputs, what Slurm's submissions note there, where its processes met.
_UNFINISHED = ("inputs.json", "claim.json", "retries.json", ".meeting-*.json")


@dataclass(frozen=True)
class RunDir:
    """The folder of one training, keyed by its id."""

    root: Path

    @property
    def job(self) -> Path:
        """The resolved TrainJob."""
        return self.root / "job.json"

    @property
    def environment(self) -> Path:
        """Versions and device of the newest start."""
        return self.root / "environment.json"

    @property
    def inputs(self) -> Path:
        """The files that the training began with, as ``provenance.Inputs``."""
        return self.root / "inputs.json"

    @property
    def code_diff(self) -> Path:
        """The difference between the newest start's code and its commit; there only if there is one."""
        return self.root / "code.diff"

    def earlier_code_diff(self, sha256: str) -> Path:
        """As ``code_diff``, of an earlier start whose code was another. sha256: of its text, as the start has it."""
        return self.root / f"code-{sha256[:8]}.diff"

    @property
    def status(self) -> Path:
        """The heartbeat, a ``Status``."""
        return self.root / "status.json"

    def failure(self, rank: int) -> Path:
        """The last ``Status`` of a process other than rank 0; there only if it failed."""
        return self.root / f"failure-{rank}.json"

    @property
    def metrics(self) -> Path:
        """One JSON object per logged iteration."""
        return self.root / "metrics.jsonl"

    @property
    def log(self) -> Path:
        """What a person reads after a failure."""
        return self.root / "log.txt"

    @property
    def tensorboard(self) -> Path:
        """Event files."""
        return self.root / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """``0000400.pt`` (to resume from) and ``final.pt`` (the result)."""
        return self.root / "checkpoints"

    @property
    def final(self) -> Path:
        """The weights that are the training's result, with their network and the categories."""
        return self.checkpoints / "final.pt"

    @property
    def submitit(self) -> Path:
        """The launcher's transport files."""
        return self.root / "submitit"

    def evaluation(self, eval_id: str) -> Path:
        """Folder of one evaluation. Raises RecordError for an id that is no plain name."""
        return self.root / "evals" / path_part(eval_id, "eval_id", raises=RecordError)

    def detections(self, eval_id: str) -> Path:
        """COCO result list, gzip'd JSON."""
        return self.evaluation(eval_id) / "detections.json.gz"

    def matches(self, eval_id: str) -> Path:
        """Which detections were right in each image, .npz: for the noise of the test set."""
        return self.evaluation(eval_id) / "matches.npz"

    def record(self, eval_id: str) -> Path:
        """The record: there if and only if the evaluation is done."""
        return self.evaluation(eval_id) / "record.json"

    def wanted(self, eval_id: str) -> Path:
        """The job of an evaluation that is asked for (``detector.runs.wanted``); gone once it is done."""
        return self.evaluation(eval_id) / "job.json"

    def read_record(self, eval_id: str) -> Record | None:
        """The finished record, or None. Raises RecordError where it is damaged, edited, or not of its folder."""
        path = self.record(eval_id)
        return read_own_record(path) if path.exists() else None

    def has_records(self) -> bool:
        """Whether any evaluation of the training is done."""
        return any(self.root.glob("evals/*/record.json"))

    def read_status(self) -> Status | None:
        """The newest heartbeat, or None where none was written yet."""
        if not self.status.exists():
            return None
        try:
            return read_json(self.status, Status, most=MOST_STATUS)
        except RecordError as error:
            with suppress(RecordError):
                if not read_bytes(self.status, most=MOST_STATUS).strip(b"\0"):
                    return None  # a machine lost power before the newest one was on its disk
            raise RecordError(f"{error} Move it away and run again.") from error

    def failures(self) -> list[Status]:
        """Of the processes other than rank 0 that failed in this start."""
        found = []
        for path in self.root.glob("failure-*.json"):
            with suppress(RecordError):  # a new start has just removed it
                found.append(read_json(path, Status, most=MOST_STATUS))
        return found

    def first_failure(self) -> Status | None:
        """The first of ``failures``."""
        return min(self.failures(), key=lambda status: status.time, default=None)

    def forget_failures(self) -> None:
        """Remove the failures of an earlier start."""
        for path in self.root.glob("failure-*.json"):
            path.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what only an unfinished run needs: what it began with is in its weights, and nobody claims it now."""
        self.forget_failures()
        for pattern in _UNFINISHED:
            for path in self.root.glob(pattern):
                path.unlink(missing_ok=True)

    def is_locked(self) -> bool:
        """Whether a living process of this machine trains or evaluates here."""
        return is_held(self.root / ".lock")

    def lock(self, wait: Callable[[], bool] = never) -> AbstractContextManager[None]:
        """Hold the run for this process. Where another holds it: wait as long as ``wait()``, then BlockingIOError."""
        return held(self.root / ".lock", wait=wait)


def read_train_job(run: RunDir) -> TrainJob:
    """The job of a run folder. Raises RecordError where there is none."""
    if not run.job.exists():
        raise RecordError(f"{run.root} is not a run folder: it has no job.json.")
    try:
        return read_json(run.job, TrainJob, most=MOST_JOB)
    except RecordError as error:
        raise RecordError(f"{error} Move it away and run again.") from error


def read_own_record(path: Path) -> Record:
    """A record in the place that it names: a run's folder, or a folder of results. Raises RecordError otherwise."""
    record = read_record(path)
    if wrong := misplaced(record, path):
        raise RecordError(f"{path}: {wrong}. Move it away.")
    return record


def is_locked(run: RunDir) -> bool:
    """Whether a process of this machine holds the run. A lock that may not be opened is another user's: False."""
    try:
        return run.is_locked()
    except PermissionError:
        return False
