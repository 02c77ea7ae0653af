"""Records with the same numbers under several names: one training cannot be two seeds or two rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from detector.runs.record import Record

# A mean over millions of scores. Two trainings that differ in anything do not share its last bit, which small test sets
# or the rounded numbers of an evaluation server may do for AP.
UNROUNDED = "positive_score"


def copies(records: Iterable[Record]) -> list[tuple[Record, ...]]:
    """Records of different trainings whose metrics are all equal to the last bit, together; the earliest first.

    Of equal times the smaller seed comes first, then the smaller id.
    """
    suspects: dict[float, list[Record]] = {}  # by one number: all of them are compared only where that is equal
    for record in records:
        if (value := record.metrics.get(UNROUNDED)) is not None:
            suspects.setdefault(value, []).append(record)
    alike: dict[tuple[tuple[str, float | None], ...], dict[str, Record]] = {}
    for record in (record for found in suspects.values() if len(found) > 1 for record in found):
        alike.setdefault(_key(record.metrics), {}).setdefault(record.train_id, record)
    return [tuple(sorted(found.values(), key=_age)) for found in alike.values() if len(found) > 1]


def _key(metrics: Mapping[str, float | None]) -> tuple[tuple[str, float | None], ...]:
    return tuple(sorted(metrics.items()))


def _age(record: Record) -> tuple[str, int, str]:
    return record.finished, record.job.train.seed, record.eval_id
