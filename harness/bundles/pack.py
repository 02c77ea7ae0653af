"""Packing a bundle: the choice of records and of the weights that belong to them, and the zip file."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from msgspec.structs import replace

from detector.errors import RecordError, UsageError
from detector.runs.record import MOST_BYTES, Record, decode_record, misplaced
from detector.storage.files import write_atomic
from detector.storage.outputs import leaves
from detector.storage.reading import read_bytes, regular_file
from harness.bundles.format import (
    FORMAT,
    MANIFEST,
    MAX_FAULTS,
    MAX_WEIGHTS,
    Manifest,
    Packed,
    RecordEntry,
    WeightsEntry,
    copy_hashed,
    weights_member,
)
from harness.planning.selection import Selection
from harness.registry.load import Registry
from harness.store.records import Store
from harness.store.replaced import record_files

ZIP_TIME: Final = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle. conflicts: one sentence per evaluation whose run and results differ.

    set_aside: one sentence per file that is no record that can be used, and was not packed.
    """

    records: tuple[Packed, ...]
    weights: dict[str, Path]  # by training id
    conflicts: tuple[str, ...]
    set_aside: tuple[str, ...] = ()


def gather(store: Store, *, profile: str | None, eval_ids: set[str] | None, with_weights: bool) -> Contents:
    """Each finished evaluation once, sorted by profile and id; of two records the committed one, not the run's.

    eval_ids: only these; None: all. Weights come only from runs whose own records have the metrics that are packed.
    A record that is damaged, or is not what it says it is, is named and left out. Raises UsageError where there is no
    record.
    """
    found, conflicts, aside = dict[str, Packed](), list[str](), list[str]()
    own, foreign = dict[str, Path](), set[str]()
    for root, path in _record_files(store, conflicts):
        try:
            record, data = _read(path)
        except RecordError as error:
            aside.append(f"{error} Move it away.")
            continue
        if profile not in (None, record.profile) or (eval_ids is not None and record.eval_id not in eval_ids):
            continue
        packed = found.setdefault(record.eval_id, Packed(record, data)).record
        if packed.metrics != record.metrics:
            conflicts.append(
                f"{path} has other numbers than {store.committed(packed)}: the latter is packed"
                f"{', and no weights' if with_weights else ''}."
            )
            foreign.add(record.train_id)
        elif root == store.runs and store.run_dir(record.train_id).final.exists():
            own[record.train_id] = store.run_dir(record.train_id).final
    for train_id in [key for key, final in own.items() if with_weights and leaves(store.runs, final)]:
        conflicts.append(f"{own.pop(train_id)} is a link that leaves {store.runs}: these weights are not packed.")
    if not found:
        raise UsageError(
            "\n".join(aside[:MAX_FAULTS])
            + ("\n" if aside else "")
            + f"There is no finished record to pack in {store.results / 'records'} and {store.runs}"
            f"{f' of profile {profile}' if profile else ''}{' for this target' if eval_ids is not None else ''}. "
            f"To see what there is: harness table all{''.join(f' {conflict}' for conflict in conflicts)}"
        )
    return Contents(
        records=tuple(sorted(found.values(), key=lambda item: (item.record.profile, item.record.eval_id))),
        weights={key: own[key] for key in sorted(own) if key not in foreign} if with_weights else {},
        conflicts=tuple(conflicts),
        set_aside=tuple(aside),
    )


def _read(path: Path) -> tuple[Record, bytes]:
    """A record and the bytes of its file. Raises RecordError for one that is damaged, or is not what it says it is."""
    data = read_bytes(path, most=MOST_BYTES)
    record = decode_record(data, where=str(path))
    if wrong := misplaced(record, path):
        raise RecordError(f"{path}: {wrong}.")
    return record, data


def _record_files(store: Store, conflicts: list[str]) -> list[tuple[Path, Path]]:
    """Each file of a record with its folder, the results' first. Links that leave it go to ``conflicts``."""
    committed = [(store.results, path) for path in sorted(store.results.glob("records/*/*.json"))]
    every = [*committed, *((store.runs, path) for path in record_files(store.runs))]
    outside = [(root, path) for root, path in every if leaves(root, path)]
    conflicts += [f"{path} is a link that leaves {root}: it is not packed." for root, path in outside]
    return [item for item in every if item not in outside] if outside else every


def evaluations_of(store: Store, target: str, profile: str | None) -> set[str]:
    """Ids of the recorded evaluations of a target's rows, of any seed, data set and split.

    profile: None for all. Raises UsageError for an unknown target or profile.
    """
    registry = Registry()
    registry.select(target, profile)  # raises for an unknown name
    splits = {record.job.split for record in store.records}
    found: set[str] = set()
    for name in [profile] if profile is not None else registry.profiles:
        if not _has_rows(registry, target, name):
            continue
        selection = Selection(target, name, [], None)
        for from_scratch in (False, True) if selection.profile.without_weights == "from_scratch" else (False,):
            # Without the data set that HARNESS_DATA may name: records of every data set belong to the row.
            for cell in selection.plan_of(selection.refs, 1, from_scratch=from_scratch).cells:
                for split in splits:
                    found |= {record.eval_id for record in store.records_of(replace(cell.job, split=split))}
    return found


def _has_rows(registry: Registry, target: str, profile: str) -> bool:
    try:
        return bool(registry.select(target, profile))
    except UsageError:  # the row does not exist at this profile
        return False


def write_bundle(out: Path, contents: Contents) -> None:
    """Write the zip; the same contents give the same bytes."""

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            _fill(archive, contents)

    write_atomic(out, write)


def _fill(archive: zipfile.ZipFile, contents: Contents) -> None:
    entries, weights = list[RecordEntry](), list[WeightsEntry]()
    for item in contents.records:
        record, sha256 = item.record, hashlib.sha256(item.data).hexdigest()
        entry = RecordEntry(eval_id=record.eval_id, train_id=record.train_id, profile=record.profile, sha256=sha256)
        archive.writestr(_member(entry.member), item.data)
        entries.append(entry)
    for train_id, path in contents.weights.items():
        member = _member(weights_member(train_id))
        member.file_size = path.stat().st_size  # zipfile needs it beforehand for a large member
        with regular_file(path, most=MAX_WEIGHTS) as source, archive.open(member, "w") as target:
            weights.append(WeightsEntry(train_id=train_id, sha256=copy_hashed(source, target)))
    manifest = Manifest(format=FORMAT, records=tuple(entries), weights=tuple(weights))
    encoded = msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=2)
    archive.writestr(_member(MANIFEST), encoded + b"\n")


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, ZIP_TIME)
    member.create_system = 3  # Unix, on every machine
    member.external_attr = 0o644 << 16
    return member
