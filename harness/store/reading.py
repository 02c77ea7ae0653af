"""One record's file: read, and held against what it says of itself."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from msgspec import json

from detector.errors import MissingLossError, RecordError
from detector.runs.loss_package import missing_loss
from detector.runs.record import FORMATS, Record, content_hash
from detector.storage.reading import read_json


def read_record(path: Path) -> Record:
    """One record. Raises RecordError where the file is damaged, was edited, or is not of the job that it names.

    MissingLossError where its loss comes from a package that is not here.
    """
    try:
        record = read_json(path, Record)
    except RecordError as error:
        with suppress(OSError, ValueError, LookupError, TypeError):
            if missing := missing_loss(json.decode(path.read_bytes())["job"]["train"]):
                raise MissingLossError(f"{path} cannot be read: {missing}") from error
        raise
    if wrong := contradiction(record):
        raise RecordError(f"{path}: {wrong}. Move it away.")
    return record


def contradiction(record: Record) -> str:
    """In which respect a record is not what it says it is, in a sentence without its end; empty where it is.

    Records of format 1 have no hash: only their ids can be checked.
    """
    if record.format not in FORMATS:
        return f"it has format {record.format}; this version reads {' and '.join(map(str, FORMATS))}"
    if (record.job.id, record.job.train.id) != (record.eval_id, record.train_id):
        return (
            f"its job has the ids {record.job.id} and {record.job.train.id}, not {record.eval_id} and "
            f"{record.train_id}: it was edited, or written by code whose results have changed since"
        )
    if record.sha256 is None and record.format > 1:
        return "it has no hash of its content, which every record of format 2 is written with: it was edited"
    if record.sha256 is not None and record.sha256 != content_hash(record):
        return "its content does not have the hash that it names: it was edited after it was written"
    return ""
