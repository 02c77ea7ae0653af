"""Importing verified bundles: first all content is compared with what is there, then what is new is written."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from detector.errors import RecordError, WeightsError
from detector.runs.folder import RunDir
from detector.runs.record import Record
from detector.storage.files import write_atomic, write_json
from detector.storage.reading import open_regular
from detector.storage.staging import staged_folder
from harness.bundles.format import Bundle, Packed, copy_hashed
from harness.store.records import Store

# Folders in it are two levels below the runs, where no search for finished runs looks.
STAGING: Final = ".importing"


@dataclass
class Part:
    """Ids of evaluations (for records) or of trainings (for weights)."""

    new: list[str] = field(default_factory=list)
    already_there: list[str] = field(default_factory=list)
    in_conflict: list[str] = field(default_factory=list)


@dataclass
class Merge:
    """What an import will do, or has done. conflicts: one sentence for each id that is ``in_conflict``."""

    records: Part = field(default_factory=Part)
    weights: Part = field(default_factory=Part)
    conflicts: list[str] = field(default_factory=list)
    new_records: list[Packed] = field(default_factory=list)
    new_weights: list[tuple[Bundle, str]] = field(default_factory=list)  # and the training's id


def plan_merge(store: Store, bundles: list[Bundle]) -> Merge:
    """Compare bundles, in their order, with what is there and with each other. Nothing is written."""
    merge = Merge()
    known = {record.eval_id: (record, _place(store, record)) for record in replace(store, source="local").records}
    committed = replace(store, source="committed").records  # of two records, that is the one to compare with
    known |= {record.eval_id: (record, _place(store, record)) for record in committed}
    for bundle in bundles:
        clashing = {
            item.record.train_id for item in bundle.records if not _sort_record(merge, store, known, bundle.file, item)
        }
        for train_id in bundle.weights:
            conflict = _sort_weights(merge, store, bundle, train_id, clashing)
            if conflict is not None:
                merge.weights.in_conflict.append(train_id)
                merge.conflicts.append(f"weights of {train_id} in {bundle.file}: {conflict}")
    return merge


def apply_merge(store: Store, merge: Merge) -> None:
    """Write what is new. Each file and each run's folder appears whole or not at all, and nothing is overwritten.

    Raises RecordError where another process has written the same file or folder in the meantime.
    """
    for item in merge.new_records:
        target = store.committed(item.record)
        if target.exists():
            raise _meanwhile(target)
        write_atomic(target, item.data)
    for bundle, train_id in merge.new_weights:
        _write_run(store, bundle, train_id)


def _sort_record(merge: Merge, store: Store, known: dict[str, tuple[Record, str]], file: Path, item: Packed) -> bool:
    """Sort one record into ``merge``; False for a conflict."""
    record = item.record
    if record.eval_id in known:
        there, where = known[record.eval_id]
        if there.metrics == record.metrics:
            merge.records.already_there.append(record.eval_id)
            return True
        conflict = f"{where} has other numbers for the same job ({_difference(there, record)})"
    elif store.committed(record).exists():
        conflict = f"{store.committed(record)} exists and is the record of another evaluation"
    else:
        known[record.eval_id] = record, str(file)
        merge.records.new.append(record.eval_id)
        merge.new_records.append(item)
        return True
    merge.records.in_conflict.append(record.eval_id)
    merge.conflicts.append(f"record {record.profile}/{record.eval_id} in {file}: {conflict}")
    return False


def _sort_weights(merge: Merge, store: Store, bundle: Bundle, train_id: str, clashing: set[str]) -> str | None:
    """Sort one training's weights into ``merge``; returns what prevents their import, or None."""
    run = store.run_dir(train_id)
    earlier = next((other for other, known in merge.new_weights if known == train_id), None)
    if train_id in clashing:
        return "left out because their record is in conflict"
    if earlier is not None:
        if not _same_weights(bundle, train_id, earlier):
            return f"{earlier.file} has other weights for the same training"
    elif run.final.exists():
        if not _same_weights(bundle, train_id, run):
            return f"{run.final} has other weights for the same training"
    elif run.root.exists():
        return f"{run.root} exists without final weights (running, stopped, or they were removed) and is not changed"
    else:
        merge.weights.new.append(train_id)
        merge.new_weights.append((bundle, train_id))
        return None
    merge.weights.already_there.append(train_id)
    return None


def _same_weights(bundle: Bundle, train_id: str, other: Bundle | RunDir) -> bool:
    """Whether the tensors are equal. The files may differ, since they also say how long the training took."""
    if isinstance(other, Bundle):
        theirs = other.weights[train_id].sha256
    else:
        with open_regular(other.final) as file:
            theirs = copy_hashed(file, None)
    if theirs == bundle.weights[train_id].sha256:
        return True
    with tempfile.TemporaryDirectory() as folder:
        mine = _extracted(bundle, train_id, Path(folder) / "mine.pt")
        if isinstance(other, Bundle):
            return _same_tensors(mine, _extracted(other, train_id, Path(folder) / "theirs.pt"))
        return _same_tensors(mine, other.final)


def _extracted(bundle: Bundle, train_id: str, target: Path) -> Path:
    with open(target, "wb") as file:
        bundle.copy_weights(train_id, file)
    return target


def _same_tensors(a: Path, b: Path) -> bool:
    """Whether two files of weights hold equal tensors. Imports torch, which nothing else here needs."""
    import torch

    from detector.weights.read import read_weights

    try:
        first, second = read_weights(a), read_weights(b)
    except WeightsError:  # cannot be compared
        return False
    return (first.network, first.class_ids, first.tensors.keys()) == (
        second.network,
        second.class_ids,
        second.tensors.keys(),
    ) and all(torch.equal(value, second.tensors[name]) for name, value in first.tensors.items())


def _write_run(store: Store, bundle: Bundle, train_id: str) -> None:
    """Make the folder of a run, which appears whole."""
    run = store.run_dir(train_id)
    records = bundle.records_of(train_id)
    with staged_folder(run.root, within=store.runs / STAGING) as folder:
        staged = RunDir(folder)
        write_json(staged.job, records[0].record.job.train)
        write_atomic(staged.final, partial(bundle.copy_weights, train_id))
        for item in records:
            write_atomic(staged.record(item.record.eval_id), item.data)
        if run.root.exists():
            raise _meanwhile(run.root)


def _place(store: Store, record: Record) -> str:
    committed = store.committed(record)
    return str(committed if committed.exists() else store.run_dir(record.train_id).record(record.eval_id))


def _difference(there: Record, packed: Record) -> str:
    """The first metric that differs, with both values. AP comes before the others."""
    names = sorted({*there.metrics, *packed.metrics}, key=lambda name: (len(name), name))
    missing = object()
    name = next(n for n in names if there.metrics.get(n, missing) != packed.metrics.get(n, missing))
    return f"{name} {there.metrics.get(name)} there, {packed.metrics.get(name)} in the bundle"


def _meanwhile(path: Path) -> RecordError:
    return RecordError(f"{path} was written by another process in the meantime. Run the same command again.")
