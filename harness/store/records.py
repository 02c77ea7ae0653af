"""Finished records, of the runs folder and of the results folder, and which row each belongs to."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import msgspec
from msgspec.structs import replace

from detector.errors import MissingLossError, RecordError
from detector.runs.folder import RunDir, read_own_record
from detector.runs.job import AnnotatedFolder, EvalJob
from detector.runs.record import Record
from detector.storage.files import write_once
from detector.storage.outputs import path_part
from harness.store.replaced import record_files

logger = logging.getLogger(__name__)

Source = Literal["local", "committed"]  # the runs folder; the results folder


@dataclass(frozen=True)
class SetAside:
    """A file that is named as a record and is none that can be used. profile: where its folder says so."""

    path: Path
    why: str
    profile: str | None


@dataclass(frozen=True)
class _Found:
    """What a folder holds: records by evaluation, the file of each, and what was set aside."""

    records: dict[str, Record]
    files: dict[str, Path]
    set_aside: tuple[SetAside, ...]


@dataclass(frozen=True)
class Store:
    """All records of both folders. Where both have a record, that of ``runs`` is taken: it was made here.

    source: only the records of one of the folders; None for both.
    """

    runs: Path
    results: Path
    source: Source | None = None

    def run_dir(self, train_id: str) -> RunDir:
        """The folder of one training. Raises RecordError for an id that is no plain name."""
        return RunDir(self.runs / path_part(train_id, "train_id", raises=RecordError))

    def committed(self, record: Record) -> Path:
        """The file of a record in the results folder. Raises RecordError where its profile or id is no plain name."""
        profile = path_part(record.profile, "The record's profile", raises=RecordError)
        eval_id = path_part(record.eval_id, "The record's eval_id", raises=RecordError)
        return self.results / "records" / profile / f"{eval_id}.json"

    @cached_property
    def records(self) -> list[Record]:
        """One record per evaluation. Files that are no whole, true record are in ``set_aside``, and stop nobody."""
        return list((self._committed.records | self._local.records).values())

    @property
    def set_aside(self) -> tuple[SetAside, ...]:
        """Files that cannot be used: damaged, edited, or not of the job that they name."""
        return self._committed.set_aside + self._local.set_aside

    def path_of(self, record: Record) -> Path:
        """The file of one of ``records``."""
        local = self._local.files.get(record.eval_id)
        return local if local is not None else self._committed.files[record.eval_id]

    def overruled(self, record: Record) -> Record | None:
        """The committed record of the same evaluation where it has other metrics than this one, which is local."""
        other = self._committed.records.get(record.eval_id)
        is_local = record.eval_id in self._local.records
        return other if is_local and other is not None and other.metrics != record.metrics else None

    def record_at(self, path: Path) -> Record:
        """The record in one of the files, each read and checked once. Raises RecordError as ``read_own_record``."""
        found = self._read.get(path)
        if found is None:
            try:
                found = read_own_record(path)
            except RecordError as error:
                found = error
            self._read[path] = found
        if isinstance(found, RecordError):
            raise found
        return found

    @cached_property
    def _read(self) -> dict[Path, Record | RecordError]:
        return {}

    @cached_property
    def _committed(self) -> _Found:
        wanted = self.source != "local"
        return self._find(sorted(self.results.glob("records/*/*.json")) if wanted else [], committed=True)

    @cached_property
    def _local(self) -> _Found:
        wanted = self.source != "committed"
        return self._find(record_files(self.runs) if wanted else [], committed=False)

    def _find(self, paths: list[Path], *, committed: bool) -> _Found:
        records, files, aside = dict[str, Record](), dict[str, Path](), list[SetAside]()
        for path in paths:
            try:
                record = self.record_at(path)
            except MissingLossError as error:
                logger.warning("left out: %s", error)  # no table here can have a row of it
                continue
            except RecordError as error:
                aside.append(SetAside(path, _without_path(path, error), path.parent.name if committed else None))
                continue
            first = files.setdefault(record.eval_id, path)
            if first == path:
                records[record.eval_id] = record
            else:
                other = "" if records[record.eval_id].metrics == record.metrics else " and with other numbers"
                why = f"a second file of the evaluation {record.eval_id}, beside {first}{other}"
                aside.append(SetAside(path, why, path.parent.name if committed else None))
        return _Found(records, files, tuple(aside))

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


def _without_path(path: Path, error: RecordError) -> str:
    """Why a file cannot be used, without its name at the front and without what to do at the end."""
    why = re.sub(r"^:(\d+): ", r"line \1: ", str(error).removeprefix(str(path))).lstrip(": ")
    return why.removesuffix(" Move it away.").removesuffix(" Move it away and run again.").rstrip(".")


def _row_key(job: EvalJob) -> EvalJob:
    """What all evaluations of a row share, whatever the seed and the (open) data set. Faster to make than an id."""
    return without_data(replace(job, train=replace(job.train, seed=0)))


def collect(store: Store, profile: str | None) -> tuple[list[Path], list[str]]:
    """Copy new records from the runs to the results. Returns the files written, and in words what was not copied.

    A record that is there with other numbers is never overwritten, and what is no whole, true record never copied.
    """
    written, conflicts = [], []
    for path in record_files(store.runs):
        try:
            record = read_own_record(path)
            if profile is not None and record.profile != profile:
                continue
            target = _target(store, record, path)
            there = read_own_record(target) if target.exists() else None
        except RecordError as error:
            conflicts.append(f"{error} It was not copied.")
            continue
        if there is None and write_once(target, record):
            written.append(target)
        elif there is None:
            conflicts.append(f"{target} was written by another process in the meantime; nothing was overwritten.")
        elif there.metrics != record.metrics:
            conflicts.append(f"{target} differs from {path}: the same job gave other numbers; nothing was overwritten.")
    return written, conflicts


def _target(store: Store, record: Record, path: Path) -> Path:
    """Where ``collect`` copies a record to. Raises RecordError, naming its file, where its profile is no plain name."""
    try:
        return store.committed(record)
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error


def without_data(job: EvalJob) -> EvalJob:
    """The job with its data left open: what the evaluations of a row over any data set share."""
    source = job.train.data
    if not isinstance(source, AnnotatedFolder):
        return job
    blank = msgspec.structs.replace(source, train_sha256=None, test_sha256=None)
    return msgspec.structs.replace(job, train=msgspec.structs.replace(job.train, data=blank))
