"""Evaluations that are asked for while their training runs: its worker makes them at its end. Free of torch.

Each is a file of its own, ``evals/<evaluation>/job.json``; an evaluation that has its record is wanted no more.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from detector.errors import HarnessError, RecordError
from detector.runs.assignment import WORKER_LOG
from detector.runs.folder import MOST_JOB, RunDir
from detector.runs.job import EvalJob
from detector.storage.files import write_json
from detector.storage.reading import read_json

logger = logging.getLogger(WORKER_LOG)


def want(run: RunDir, jobs: Iterable[EvalJob]) -> None:
    """Ask for evaluations of a run, whether or not somebody trains it now. One that has its record changes nothing.

    Raises RecordError for an evaluation of another training.
    """
    for job in jobs:
        eval_id, train_id = job.ids
        if train_id != run.root.name:
            raise RecordError(f"The evaluation {eval_id} is of the training {train_id}, not of {run.root}.")
        if not run.record(eval_id).exists():
            write_json(run.wanted(eval_id), job)


def wanted(run: RunDir) -> list[EvalJob]:
    """The evaluations of a run that are asked for and have no record, by their ids. A broken file is named in the log.

    Raises OSError where storage is unavailable.
    """
    found = []
    for path in sorted(run.root.glob("evals/*/job.json")):
        if run.record(path.parent.name).exists():
            continue
        try:
            job = read_json(path, EvalJob, most=MOST_JOB)
            if job.ids != (path.parent.name, run.root.name):
                raise RecordError(f"{path} asks for the evaluation {job.id} of the training {job.train.id}.")
        except HarnessError as error:  # also of a number that no id can hold
            if path.exists():  # its evaluation may have just ended
                logger.warning("A wanted evaluation is left out: %s", error)
            continue
        found.append(job)
    return found


def forget_evaluated(run: RunDir) -> None:
    """Remove the files of evaluations that have their record, which holds the job too."""
    for path in run.root.glob("evals/*/job.json"):
        if run.record(path.parent.name).exists():
            path.unlink(missing_ok=True)
