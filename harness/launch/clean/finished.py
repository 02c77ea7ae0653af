"""Which runs of a runs folder are finished for good, so that files of their way may go."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from detector.errors import RecordError
from detector.runs.folder import RunDir, is_locked, read_own_record
from detector.runs.status import ALIVE
from harness.folders import may_read, may_write
from harness.launch.lease import leased
from harness.slurm.states import SchedulerState
from harness.slurm.submissions import Submission, read_submissions
from harness.status.find import run_folders
from harness.status.kinds import STALE_SECONDS
from harness.status.observe import look_at_queue


@dataclass(frozen=True)
class RunsFolder:
    """A runs folder at one moment. The queue is asked once."""

    runs: Path

    @cached_property
    def submissions(self) -> list[Submission]:
        """All of them. Raises RecordError where one cannot be read: what it uses would not be known."""
        return read_submissions(self.runs)

    @cached_property
    def finished(self) -> dict[str, RunDir]:
        """By id, the runs that are done, that nobody works on or waits for, and that this user may change."""
        return {run.root.name: run for run in run_folders(self.runs) if self._is_finished(run)}

    def is_idle(self, train_id: str) -> bool:
        """Whether no queue and no launcher has the run, as far as that is known. Unknown is not idle."""
        if train_id in self._leased:
            return False
        state = self._states.get(train_id)
        return train_id not in self._submitted if state is None else state.phase in ("gone", "refused")

    def is_over(self, submission: Submission) -> bool:
        """Whether no job of the submission will use its files again."""
        if submission.state in ("ended", "refused"):
            return True
        return submission.state == "submitted" and all(map(self.is_idle, submission.runs))

    def unfinished(self, train_ids: Collection[str]) -> bool:
        """Whether any of these runs is not done."""
        return not self.finished.keys() >= set(train_ids)

    @cached_property
    def _leased(self) -> set[str]:
        return leased(self.runs)

    @cached_property
    def _submitted(self) -> set[str]:
        """Runs that a job may have which the queue has not been asked for, or has not answered for."""
        return {run for item in self.submissions if item.state not in ("ended", "refused") for run in item.runs}

    @cached_property
    def _states(self) -> dict[str, SchedulerState]:
        scheduler = look_at_queue(self.runs)
        known = {run for item in self.submissions for run in item.runs} | {run.root.name for run in self._folders}
        found = {train_id: scheduler.states(RunDir(self.runs / train_id)) for train_id in known}
        return {train_id: state for train_id, state in found.items() if state is not None}

    @cached_property
    def _folders(self) -> list[RunDir]:
        return run_folders(self.runs)

    def _is_finished(self, run: RunDir) -> bool:
        """By the files, then by those who may still want it; all of it as of now."""
        if run.root.is_symlink() or not may_read(run.root) or not may_write(run.root):
            return False
        lock = run.root / ".lock"
        if (lock.exists() and not may_write(lock)) or is_locked(run) or not run.final.is_file():
            return False
        try:
            status = run.read_status()
            records = [read_own_record(path) for path in run.root.glob("evals/*/record.json")]
        except (RecordError, OSError):
            return False
        if status is None or not records or any(record.train_id != run.root.name for record in records):
            return False
        # An evaluation that was asked for, or begun, and has no record yet.
        open_ones = [path for path in run.root.glob("evals/*") if not (path / "record.json").exists()]
        alive = status.phase in ALIVE and time.time() - status.time < STALE_SECONDS  # perhaps on another machine
        return not alive and not open_ones and self.is_idle(run.root.name)
