"""Bundles: zip files that carry records, and the final weights of their trainings, to another results folder.

    manifest.json                        what is packed, with the sha256 of each file
    records/<profile>/<eval_id>.json     the record, byte for byte
    weights/<train_id>.pt                the final weights, byte for byte, if they were requested

The same content gives the same bytes, and nothing in them says who packed it. Members are not compressed: compressors
write different bytes in different versions, and a member that is not compressed cannot expand when it is read.
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
from typing import IO, Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from detector.errors import RecordError, UsageError
from detector.runs.record import Record, decode_record
from detector.storage.outputs import path_part
from detector.storage.reading import decode_json, regular_file

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
CHUNK: Final = 2**20  # bytes read at a time
MAX_FAULTS: Final = 10  # named in one message
MAX_NAME: Final = 200  # letters of a member that is named
# A record has about 4 kB, its entry in the manifest 200 bytes; the largest network here has 0.4 GB of weights.
MAX_RECORD: Final = 2**20
MAX_MANIFEST: Final = 2**26
MAX_WEIGHTS: Final = 2**32
MAX_BUNDLE: Final = 2**42

# \A and \Z, because $ would accept a line break at the end, and each of these becomes part of a path.
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
        profile, eval_id = (
            path_part(part, "A record's profile or id", raises=RecordError) for part in (self.profile, self.eval_id)
        )
        return f"records/{profile}/{eval_id}.json"


class WeightsEntry(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The packed final weights of a training."""

    train_id: Id
    sha256: Sha256

    @property
    def member(self) -> str:
        """Its place in the zip."""
        return weights_member(self.train_id)


class Manifest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a bundle holds. ``format`` is increased when older code could misread it."""

    format: int
    records: tuple[RecordEntry, ...]
    weights: tuple[WeightsEntry, ...]


def weights_member(train_id: str) -> str:
    """The place in the zip of a training's final weights."""
    return f"weights/{path_part(train_id, 'train_id', raises=RecordError)}.pt"


@dataclass(frozen=True)
class Packed:
    """A record and the bytes of its file."""

    record: Record
    data: bytes


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and verified completely."""

    file: Path
    records: tuple[Packed, ...]
    weights: dict[str, WeightsEntry]  # by training id; each has a record among ``records``

    def records_of(self, train_id: str) -> list[Packed]:
        """The packed evaluations of one training."""
        return [item for item in self.records if item.record.train_id == train_id]

    def copy_weights(self, train_id: str, target: IO[bytes]) -> None:
        """Write a training's final weights to ``target``.

        Raises RecordError if the bundle changed since it was verified; ``target`` must not be used then.
        """
        entry = self.weights[train_id]
        with _opened(self.file) as archive, archive.open(entry.member) as source:
            if copy_hashed(source, target) != entry.sha256:
                raise RecordError(f"{self.file} changed while it was imported. Run the same command again.")


def copy_hashed(source: IO[bytes], target: IO[bytes] | None) -> str:
    """Copy ``source`` to ``target`` and return its sha256. target: None to read only."""
    digest = hashlib.sha256()
    while chunk := source.read(CHUNK):
        digest.update(chunk)
        if target is not None:
            target.write(chunk)
    return digest.hexdigest()


def read_bundle(file: Path) -> Bundle:
    """Read a bundle and verify all of it; nothing is written.

    Raises UsageError where there is no file, and RecordError with the faults: an incomplete zip; a member that is
    unknown, missing, duplicate, too large, or named to lie elsewhere; a file whose sha256 differs from the manifest's;
    a record whose ids are not those of its job.
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
    """An open zip file. The errors that Python raises for a damaged one become RecordErrors."""
    try:
        with regular_file(file, most=MAX_BUNDLE) as opened, zipfile.ZipFile(opened) as archive:
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
    """Raise RecordError if there are faults."""
    if faults:
        more = [f"and {len(faults) - MAX_FAULTS} more"] if len(faults) > MAX_FAULTS else []
        listed = "\n  ".join([*faults[:MAX_FAULTS], *more])
        raise RecordError(f"{file} is refused, nothing was written:\n  {listed}\nHave it packed again.")


def _layout_faults(members: list[zipfile.ZipInfo], file_size: int) -> list[str]:
    """What the headers of the members show to be wrong, before anything else is read."""
    faults, seen = [], set[str]()
    for member in members:
        name = member.orig_filename
        called = repr(name[:MAX_NAME])
        if name.startswith("/") or "\\" in name or ":" in name or "\0" in name or ".." in name.split("/"):
            faults.append(f"{called} would be written outside its folder")
        if name in seen:
            faults.append(f"{called} is in the zip twice")
        seen.add(name)
        if member.flag_bits & 1:
            faults.append(f"{called} is encrypted")
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            faults.append(f"{called} is compressed, as no member of a bundle is: another program packed it")
        limit = MAX_MANIFEST if name == MANIFEST else MAX_WEIGHTS if name.startswith("weights/") else MAX_RECORD
        if member.file_size > limit:
            faults.append(f"{called} has {member.file_size:,} bytes; at most {limit:,} are allowed")
    if sum(member.file_size for member in members) > file_size:
        faults.append("its members overlap: together they are larger than the file")
    return faults


def _read_manifest(archive: zipfile.ZipFile, file: Path) -> Manifest:
    if MANIFEST not in archive.namelist():
        raise RecordError(f"{file} is refused, nothing was written: it has no {MANIFEST}, so it is no bundle.")
    try:
        plain = decode_json(archive.read(MANIFEST), dict[str, Any], where=MANIFEST)
        found = plain.get("format")
        if isinstance(found, int) and found != FORMAT:
            raise RecordError(f"it is a bundle of format {found}; this version reads format {FORMAT}.")
        return msgspec.convert(plain, Manifest)
    except (RecordError, msgspec.ValidationError) as error:
        said = error if isinstance(error, RecordError) else f"{MANIFEST} cannot be read: {error}."
        raise RecordError(f"{file} is refused, nothing was written: {said}") from error


def _content_faults(members: list[zipfile.ZipInfo], manifest: Manifest) -> list[str]:
    """Where the manifest and the members do not match."""
    wanted = {entry.member for entry in manifest.records} | {entry.member for entry in manifest.weights}
    given = {member.filename for member in members} - {MANIFEST}
    trained = {entry.train_id for entry in manifest.records}
    weights = [entry.train_id for entry in manifest.weights]
    return [
        *(f"{name[:MAX_NAME]!r} is not in {MANIFEST}" for name in sorted(given - wanted)),
        *(f"{name!r} is in {MANIFEST}, but missing" for name in sorted(wanted - given)),
        *(f"{MANIFEST} lists record {name} twice" for name in _twice([entry.eval_id for entry in manifest.records])),
        *(f"{MANIFEST} lists weights {name} twice" for name in _twice(weights)),
        *(f"{weights_member(name)!r} belongs to no packed record" for name in weights if name not in trained),
    ]


def _twice(names: list[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _read_records(archive: zipfile.ZipFile, manifest: Manifest) -> tuple[list[Packed], list[str]]:
    """All records that match the manifest, and the faults of the others."""
    records, faults = [], []
    for entry in manifest.records:
        data = archive.read(entry.member)
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            faults.append(_changed(entry.member))
            continue
        try:
            record = decode_record(data, where=repr(entry.member))
        except RecordError as error:
            faults.append(str(error))
            continue
        if (record.eval_id, record.train_id, record.profile) != (entry.eval_id, entry.train_id, entry.profile):
            faults.append(f"{entry.member!r} is the record of {record.profile}/{record.eval_id}, not of its name")
        records.append(Packed(record, data))
    return records, faults


def _changed(name: str) -> str:
    return f"{name!r} has another sha256 than {MANIFEST} names: it was changed after it was packed"
