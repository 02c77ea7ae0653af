"""A worker's assignment as bytes, so that a machine without the loss's package can say what it lacks. Free of torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from detector.errors import TrainingError
from detector.runs.assignment import Assignment
from detector.runs.folder import RunDir
from detector.runs.origin.loss_package import missing_loss
from detector.worker.reports import Heartbeat, log_to, report_failure


def encode(assignment: Assignment) -> bytes:
    """The assignment as JSON."""
    return msgspec.json.encode(assignment)


def decode(data: bytes) -> Assignment | MissingLoss:
    """The assignment, or what stands for it where its loss is not installed here.

    Raises msgspec.DecodeError for anything else.
    """
    try:
        return msgspec.json.decode(data, type=Assignment)
    except msgspec.ValidationError as error:
        told: Any = msgspec.json.decode(data)
        missing = missing_loss(told["train"]) if isinstance(told, dict) and "train" in told else ""
        if not missing:
            raise
        text = (
            f"This run cannot begin: {missing} Install it in the environment in which runs are executed: the copy of "
            f"the code that a submission makes holds drloss-harness only. ({error})"
        )
        return MissingLoss(told["run_dir"], told["train"]["schedule"]["iterations"], text)


@dataclass(frozen=True)
class MissingLoss:
    """Callable in the worker's place: reports the run as failed."""

    run_dir: str
    iterations: int
    text: str

    def __call__(self, job: str | None = None) -> None:
        """Raises TrainingError, once ``harness status`` can tell it. job: the id of the Slurm job of this process."""
        run, rank = RunDir(Path(self.run_dir)), int(os.environ.get("SLURM_PROCID", "0"))
        error = TrainingError(self.text)
        run.root.mkdir(parents=True, exist_ok=True)
        log_to(run.log)
        heartbeat = Heartbeat(run.failure(rank) if rank else run.status, self.iterations, job=job)
        report_failure(run, rank, heartbeat, error)
        raise error
