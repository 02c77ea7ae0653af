"""From finished records to the rows that they fill."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from detector.errors import UsageError
from detector.runs.job import DataSource
from detector.runs.record import Record
from harness.planning.loss_sources import of_one_source
from harness.planning.plan import Plan
from harness.store.records import Store
from harness.verdicts.evidence import RowRuns


def row_records(store: Store, plans: Iterable[Plan], *, split: str | None = None) -> dict[str, list[Record]]:
    """By row, its finished records on ``split`` from the first plan that has any (pretrained, else from scratch).

    Raises UsageError where records of different data sets would be mixed in one table.
    """
    rows: dict[str, list[Record]] = {}
    for plan in plans:
        for cell in plan.cells:
            if cell.seed == 0 and not rows.get(cell.ref):
                rows[cell.ref] = store.records_of(replace(cell.job, split=split))
    sources: set[DataSource] = {record.job.train.data for records in rows.values() for record in records}
    if len(sources) > 1:
        raise UsageError(
            f"The records found are of {len(sources)} different data sets. Say which with --data DIR (the folder)."
        )
    return rows


def row_runs(records_by_row: Mapping[str, list[Record]], *, split: str) -> dict[str, RowRuns]:
    """The same as the statistics need it: metrics per seed, and which rows share a seed deviation."""
    found = {ref: of_one_source(records) for ref, records in records_by_row.items()}
    return {
        ref: RowRuns(
            ref=ref,
            pool=f"{records[0].job.train.model.backbone}/{records[0].job.train.schedule.iterations}",
            seeds=tuple(record.job.train.seed for record in records),
            train_ids=tuple(record.train_id for record in records),
            runs=tuple(record.metrics for record in records),
            split=split,
        )
        for ref, records in found.items()
        if records
    }
