"""Finished records, of the runs folder and of the results folder, and which row each belongs to."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec
from msgspec import json
from msgspec.structs import replace

from detector.errors import MissingLossError, RecordError
from detector.runs.folder import RunDir
from detector.runs.job import AnnotatedFolder, EvalJob
from detector.runs.loss_package import missing_loss
from detector.runs.record import Record
from detector.storage.files import read_json, write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Store:
    """All records of both folders. Where both have a record, that of ``results`` is taken."""

    runs: Path
    results: Path

    def run_dir(self, train_id: str) -> RunDir:
        """The folder of one training."""
        return RunDir(self.runs / train_id)

    def committed(self, record: Record) -> Path:
        """The file of a record in the results folder."""
        return self.results / "records" / record.profile / f"{record.eval_id}.json"

    @cached_property
    def records(self) -> list[Record]:
        """One record per evaluation. Raises RecordError for a file that is damaged or not of the job that it names."""
        found: dict[str, Record] = {}
        committed = sorted(self.results.glob("records/*/*.json"))
        for path in [*committed, *sorted(self.runs.glob("*/evals/*/record.json"))]:
            try:
                record = read_record(path)
            except MissingLossError as error:
                logger.warning("left out: %s", error)  # no table here can have a row of it
                continue
            found.setdefault(record.eval_id, record)
        return list(found.values())

    @cached_property
    def _by_row(self) -> dict[EvalJob, list[Record]]:
        by_row: dict[EvalJob, list[Record]] = {}
        for record in self.records:
            by_row.setdefault(_row_key(record.job), []).append(record)
        return by_row

    def records_of(self, job: EvalJob) -> list[Record]:
        """The records of a row, by seed; of any data set where the job leaves it open."""
        found = self._by_row.get(_row_key(job), [])
        source = job.train.data
        if not (isinstance(source, AnnotatedFolder) and source.test_sha256 is None):
            found = [record for record in found if record.job.train.data == source]
        return sorted(found, key=lambda record: record.job.train.seed)


def read_record(path: Path) -> Record:
    """One record. Raises RecordError where the file is damaged or not of the job that it names.

    MissingLossError where its loss comes from a package that is not here.
    """
    try:
        record = read_json(path, Record)
    except RecordError as error:
        with suppress(OSError, ValueError, LookupError, TypeError):
            if missing := missing_loss(json.decode(path.read_bytes())["job"]["train"]):
                raise MissingLossError(f"{path} cannot be read: {missing}") from error
        raise
    if record.job.id != record.eval_id:
        raise RecordError(
            f"{path}: its job has the id {record.job.id}, not {record.eval_id}: it was edited, or written by "
            "code whose results have changed since. Move it away."
        )
    return record


def _row_key(job: EvalJob) -> EvalJob:
    """What all evaluations of a row share, whatever the seed and the (open) data set. Faster to make than an id."""
    return without_data(replace(job, train=replace(job.train, seed=0)))


def collect(store: Store, profile: str | None) -> tuple[list[Path], list[str]]:
    """Copy new records from the runs to the results. Returns the files written, and the conflicts in words.

    A record that is there with other numbers is never overwritten: that is a conflict.
    """
    written, conflicts = [], []
    for path in sorted(store.runs.glob("*/evals/*/record.json")):
        try:
            record = read_record(path)
        except MissingLossError as error:
            conflicts.append(f"{error} It was not copied.")
            continue
        if profile is not None and record.profile != profile:
            continue
        target = store.committed(record)
        if not target.exists():
            write_json(target, record)
            written.append(target)
        elif read_record(target).metrics != record.metrics:
            conflicts.append(f"{target} differs from {path}: the same job gave other numbers; nothing was overwritten.")
    return written, conflicts


def without_data(job: EvalJob) -> EvalJob:
    """The job with its data left open: what the evaluations of a row over any data set share."""
    source = job.train.data
    if not isinstance(source, AnnotatedFolder):
        return job
    blank = msgspec.structs.replace(source, train_sha256=None, test_sha256=None)
    return msgspec.structs.replace(job, train=msgspec.structs.replace(job.train, data=blank))
