"""Records whose inputs or source code differ: of a row they are never averaged, of two rows never compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from detector.runs.record import Record, differences
from drloss.plugins import source_sha256
from harness.store.copies import copies


@dataclass(frozen=True)
class LeftOut:
    """A record that is not averaged with the others of its row, and in which respects it differs from them."""

    record: Record
    why: tuple[str, ...]


@dataclass(frozen=True)
class Chosen:
    """The records of a row that may be averaged, and the others."""

    kept: tuple[Record, ...]
    left_out: tuple[LeftOut, ...] = ()


def choose(records: Sequence[Record]) -> Chosen:
    """The largest group of a row's records that all had the same inputs; of equally large ones that with the newest.

    Inputs: weights, annotations and images, as far as both of two records know them, and the source of a loss from
    another package. Where that source is installed here, its records come before any larger group. Copies of one record
    under several seeds count once.
    """
    extra = {id(copy): first for first, *others in copies(records) for copy in others}
    distinct = [record for record in records if id(record) not in extra]
    kept = _largest(distinct)
    ids = {record.eval_id for record in kept}
    left = [LeftOut(record, _against(record, kept)) for record in distinct if record.eval_id not in ids]
    left += [LeftOut(record, (_copied(extra[id(record)]),)) for record in records if id(record) in extra]
    return Chosen(tuple(kept), tuple(left))


def differ(a: Record, b: Record) -> tuple[str, ...]:
    """``differences``, and the source of a loss from another package; empty where nothing is known to differ."""
    one, other = a.code.loss_sha256, b.code.loss_sha256
    same_package = a.job.train.loss_package == b.job.train.loss_package
    if same_package and one is not None and other is not None and one != other:
        what = f"source code of the loss, {a.job.train.loss_package}: sha256 {one[:12]} and {other[:12]}"
        return (*differences(a, b), what)
    return differences(a, b)


def apart(rows: Mapping[str, Sequence[Record]]) -> dict[str, tuple[str, ...]]:
    """Rows that cannot be compared with most others, because of other inputs, and in which respects.

    rows: the averaged records of each row. Of these, the one that knows most stands for all: they have equal inputs.
    """
    firsts = {ref: _fullest(records) for ref, records in rows.items() if records}
    if not firsts:
        return {}
    # Of equally large groups the first: max keeps the earliest.
    group = max(_groups(list(firsts.values())), key=len)
    ids = {record.eval_id for record in group}
    found = {ref: _against(record, group) for ref, record in firsts.items() if record.eval_id not in ids}
    return {ref: why for ref, why in found.items() if why}


def _largest(records: Sequence[Record]) -> list[Record]:
    newest = sorted(records, key=lambda record: record.finished, reverse=True)
    groups = _groups(newest)
    if len(groups) < 2:
        return list(records)
    best = max(groups, key=lambda group: (_is_installed(group), len(group), max(item.finished for item in group)))
    ids = {record.eval_id for record in best}
    return [record for record in records if record.eval_id in ids]


def _groups(records: Sequence[Record]) -> list[list[Record]]:
    """Groups without a difference, each begun by another kind of record; what is unknown fits into several.

    Kinds are compared, not records: of a thousand records there are rarely more than two.
    """
    kinds: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        kinds.setdefault(_kind(record), []).append(record)
    every = list(kinds.values())
    groups = []
    for begun in every:
        group = [begun]
        for other in every:
            if other is not begun and not any(differ(other[0], member[0]) for member in group):
                group.append(other)
        if len(group) == len(every):
            return [list(records)]
        groups.append([record for members in group for record in members])
    return groups


def _kind(record: Record) -> tuple[object, ...]:
    """Everything that ``differ`` looks at: two records that are equal in it do not differ."""
    train = record.job.train
    named = (train.data, record.job.split, train.model.backbone, train.model.weights, train.loss_package)
    return (*named, record.inputs, record.train_split.sha256, record.test_split.sha256, record.code.loss_sha256)


def _fullest(records: Sequence[Record]) -> Record:
    """The record that knows most of its inputs."""
    return max(records, key=lambda record: record.format)


def _against(record: Record, kept: Iterable[Record]) -> tuple[str, ...]:
    """In which respects a record differs from the first of those that it differs from."""
    return next((why for why in (differ(record, other) for other in kept) if why), ())


def _copied(first: Record) -> str:
    return f"all its metrics are those of seed {first.job.train.seed}, to the last digit: one is a copy of the other"


def _is_installed(group: Sequence[Record]) -> bool:
    source = group[0].code.loss_sha256
    return source is not None and source == source_sha256(group[0].job.train.loss)
