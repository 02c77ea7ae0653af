"""Bundles: finished records, and the final weights of their trainings, in one zip that another results folder takes in.

    manifest.json                        what is packed, with the sha256 of each file
    records/<profile>/<eval_id>.json     the record, byte for byte
    weights/<train_id>.pt                the final weights, byte for byte, if they were asked for

The same content gives the same bytes; nothing says who packed it. Members are stored, not compressed: what a compressor
writes differs between its versions, and what cannot grow when it is read needs no defence against growing.
"""

from __future__ import annotations

import errno
import hashlib
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Final

import msgspec
from msgspec import Meta, Struct

from detector.errors import RecordError, UsageError
from detector.runs.record import Record

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
CHUNK: Final = 2**20  # bytes read at a time
SHOWN: Final = 10  # faults named in one message
# A record has about 4 kB, its line in the manifest 200 bytes; the largest network here has 0.4 GB of float32 weights.
MAX_RECORD: Final = 2**20
MAX_MANIFEST: Final = 2**26
MAX_WEIGHTS: Final = 2**32

# \A and \Z: $ would let a line break through, and each of these becomes part of a path.
Id = Annotated[str, Meta(pattern=r"\A[0-9a-f]{16}\Z")]
Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
ProfileName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")]


class RecordEntry(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A packed record."""

    eval_id: Id
    train_id: Id
    profile: ProfileName
    sha256: Sha256

    @property
    def member(self) -> str:
        """Its place in the zip."""
        return f"records/{self.profile}/{self.eval_id}.json"


class WeightsEntry(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The packed final weights of a training."""

    train_id: Id
    sha256: Sha256

    @property
    def member(self) -> str:
        """Its place in the zip."""
        return weights_member(self.train_id)


class Manifest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a bundle holds. ``format`` is raised when older code could misread it."""

    format: int
    records: tuple[RecordEntry, ...]
    weights: tuple[WeightsEntry, ...]


def weights_member(train_id: str) -> str:
    """The place in the zip of a training's final weights."""
    return f"weights/{train_id}.pt"


@dataclass(frozen=True)
class Packed:
    """A record and the bytes of its file."""

    record: Record
    data: bytes


@dataclass(frozen=True)
class Bundle:
    """A bundle of which everything was verified."""

    file: Path
    records: tuple[Packed, ...]
    weights: dict[str, WeightsEntry]  # by training id; each has a record among ``records``

    def records_of(self, train_id: str) -> list[Packed]:
        """The packed evaluations of one training."""
        return [item for item in self.records if item.record.train_id == train_id]

    def copy_weights(self, train_id: str, target: IO[bytes]) -> None:
        """Write a training's final weights to ``target``. Raises RecordError if the file changed since it was verified.

        What was written by then is to be thrown away.
        """
        entry = self.weights[train_id]
        with _opened(self.file) as archive, archive.open(entry.member) as source:
            if copy_hashed(source, target) != entry.sha256:
                raise RecordError(f"{self.file} changed while it was imported. Run the same command again.")


def decode_record(data: bytes, where: str) -> Record:
    """A record from its bytes. Raises RecordError, naming ``where``, unless its job has the ids that it states."""
    try:
        record = msgspec.json.decode(data, type=Record)
    except msgspec.DecodeError as error:
        raise RecordError(f"{where} cannot be read as Record: {error}") from error
    if (record.job.id, record.job.train.id) != (record.eval_id, record.train_id):
        raise RecordError(
            f"{where}: its job has the ids {record.job.id} and {record.job.train.id}, not {record.eval_id} and "
            f"{record.train_id}: it was edited, or written by code whose results have changed since"
        )
    return record


def copy_hashed(source: IO[bytes], target: IO[bytes] | None) -> str:
    """Copy all of ``source`` (None: only read it) and return the sha256 of what was read."""
    digest = hashlib.sha256()
    while chunk := source.read(CHUNK):
        digest.update(chunk)
        if target is not None:
            target.write(chunk)
    return digest.hexdigest()


def read_bundle(file: Path) -> Bundle:
    """Open a bundle and verify all of it; nothing is written.

    Raises UsageError where there is no file, RecordError with every fault found: not a whole zip, a member that is
    unknown, missing, there twice, too large or outside, a file with another sha256 than the manifest's, a record whose
    job has other ids than it names.
    """
    if not file.is_file():
        raise UsageError(f"There is no bundle {file}. To make one: harness bundle export OUT.zip")
    with _opened(file) as archive:
        members = archive.infolist()
        _refuse(file, _layout_faults(members, file.stat().st_size))
        manifest = _read_manifest(archive, file)
        _refuse(file, _content_faults(members, manifest))
        records, faults = _read_records(archive, manifest)
        for entry in manifest.weights:
            with archive.open(entry.member) as source:
                if copy_hashed(source, None) != entry.sha256:
                    faults.append(_changed(entry.member))
        _refuse(file, faults)
    return Bundle(file, tuple(records), {entry.train_id: entry for entry in manifest.weights})


@contextmanager
def _opened(file: Path) -> Iterator[zipfile.ZipFile]:
    """The zip; what a damaged one makes Python raise becomes a RecordError."""
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
        raise _not_whole(file, error) from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # a seek to a place that a broken header names
            raise
        raise _not_whole(file, error) from error


def _not_whole(file: Path, error: Exception) -> RecordError:
    return RecordError(f"{file} is refused: it is not a whole bundle: {error}. Have it sent again.")


def _refuse(file: Path, faults: list[str]) -> None:
    """Raise RecordError if there are any."""
    if faults:
        more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        listed = "\n  ".join([*faults[:SHOWN], *more])
        raise RecordError(f"{file} is refused, nothing was written:\n  {listed}\nHave it packed again.")


def _layout_faults(members: list[zipfile.ZipInfo], file_size: int) -> list[str]:
    """What is wrong with the members by their headers alone, before anything is read."""
    faults, seen = [], set[str]()
    for member in members:
        name = member.orig_filename
        if name.startswith("/") or "\\" in name or ":" in name or "\0" in name or ".." in name.split("/"):
            faults.append(f"{name!r} names a place outside")
        if name in seen:
            faults.append(f"{name!r} is there twice")
        seen.add(name)
        if member.flag_bits & 1:
            faults.append(f"{name!r} is encrypted")
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            faults.append(f"{name!r} is compressed, which no bundle is: it was packed by another program")
        limit = MAX_MANIFEST if name == MANIFEST else MAX_WEIGHTS if name.startswith("weights/") else MAX_RECORD
        if member.file_size > limit:
            faults.append(f"{name!r} has {member.file_size:,} bytes; at most {limit:,} are allowed")
    if sum(member.file_size for member in members) > file_size:
        faults.append("its members overlap: together they are larger than the file")
    return faults


def _read_manifest(archive: zipfile.ZipFile, file: Path) -> Manifest:
    if MANIFEST not in archive.namelist():
        raise RecordError(f"{file} is refused, nothing was written: it has no {MANIFEST}, so it is no bundle.")
    data = archive.read(MANIFEST)
    try:
        plain = msgspec.json.decode(data)
        found = plain.get("format") if isinstance(plain, dict) else None
        if isinstance(found, int) and found != FORMAT:
            raise RecordError(
                f"{file} is refused, nothing was written: it is a bundle of format {found}; this version reads "
                f"format {FORMAT}."
            )
        return msgspec.convert(plain, Manifest)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RecordError(f"{file} is refused, nothing was written: {MANIFEST} cannot be read: {error}.") from error


def _content_faults(members: list[zipfile.ZipInfo], manifest: Manifest) -> list[str]:
    """Where manifest and members are not of each other."""
    wanted = {entry.member for entry in manifest.records} | {entry.member for entry in manifest.weights}
    given = {member.filename for member in members} - {MANIFEST}
    trained = {entry.train_id for entry in manifest.records}
    weights = [entry.train_id for entry in manifest.weights]
    return [
        *(f"{name!r} is not in {MANIFEST}" for name in sorted(given - wanted)),
        *(f"{name!r} is in {MANIFEST}, but missing" for name in sorted(wanted - given)),
        *(f"{MANIFEST} lists record {name} twice" for name in _twice([entry.eval_id for entry in manifest.records])),
        *(f"{MANIFEST} lists weights {name} twice" for name in _twice(weights)),
        *(f"{weights_member(name)!r} belongs to no packed record" for name in weights if name not in trained),
    ]


def _twice(names: list[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _read_records(archive: zipfile.ZipFile, manifest: Manifest) -> tuple[list[Packed], list[str]]:
    """All records that are what the manifest says, and the faults of the others."""
    records, faults = [], []
    for entry in manifest.records:
        data = archive.read(entry.member)
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            faults.append(_changed(entry.member))
            continue
        try:
            record = decode_record(data, repr(entry.member))
        except RecordError as error:
            faults.append(str(error))
            continue
        if (record.eval_id, record.train_id, record.profile) != (entry.eval_id, entry.train_id, entry.profile):
            faults.append(f"{entry.member!r} is the record of {record.profile}/{record.eval_id}, not of its name")
        records.append(Packed(record, data))
    return records, faults


def _changed(name: str) -> str:
    return f"{name!r} has another sha256 than {MANIFEST} says: it was changed after it was packed"
