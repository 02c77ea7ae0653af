"""Runs of a row whose loss, from another package, had other source code: they are never averaged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from detector.runs.record import Record
from drloss.plugins import source_sha256


def of_one_source(records: Sequence[Record]) -> list[Record]:
    """The records of a row that were made by one source of its loss.

    That is the source that is installed here, else that of the newest record. All of them for a built-in loss.
    """
    sources = {record.code.loss_sha256 for record in records}
    if len(sources) < 2:
        return list(records)
    newest = max(records, key=lambda record: record.finished)
    here = source_sha256(newest.job.train.loss)
    chosen = here if here in sources else newest.code.loss_sha256
    return [record for record in records if record.code.loss_sha256 == chosen]


def left_out_notes(found: Mapping[str, Sequence[Record]], refs: Iterable[str]) -> tuple[str, ...]:
    """A footnote for each row that has records of another source than those shown."""
    notes = []
    for ref in refs:
        records = found.get(ref, ())
        kept = of_one_source(records)
        if len(kept) < len(records):
            number, package = len(records) - len(kept), kept[0].job.train.loss_package
            which = "installed here" if _is_installed(kept[0]) else "of the newest record"
            notes.append(
                f"{ref}: {number} of {len(records)} records left out: the source code of their loss, {package}, is not "
                f"the one {which} ({str(kept[0].code.loss_sha256)[:12]}). Give the package a new version whenever its "
                "code changes; to train these seeds again, move their run folders away."
            )
    return tuple(notes)


def _is_installed(record: Record) -> bool:
    return record.code.loss_sha256 == source_sha256(record.job.train.loss)
