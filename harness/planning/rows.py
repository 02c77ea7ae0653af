"""From finished records to the rows that they fill."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from detector.errors import UsageError
from detector.runs.job import DataSource, TrainJob
from detector.runs.record import Record
from drloss.config import CrossEntropyConfig
from harness.planning.plan import Plan
from harness.planning.unequal import choose
from harness.store.records import Store
from harness.store.score_figures import score_figures
from harness.verdicts.runs import RowRuns


def row_records(store: Store, plans: Iterable[Plan], *, split: str | None = None) -> dict[str, list[Record]]:
    """By row, its finished records on ``split`` from the first plan that has any (pretrained, else from scratch).

    Raises UsageError where the records of rows that name the same data are of different data sets.
    """
    rows: dict[str, list[Record]] = {}
    found: dict[DataSource, set[DataSource]] = {}  # by the data that a row names, which may leave open what it holds
    for plan in plans:
        for cell in plan.cells:
            if cell.seed == 0 and not rows.get(cell.ref):
                rows[cell.ref] = store.records_of(replace(cell.job, split=split))
                sources = found.setdefault(cell.job.train.data, set())
                sources |= {record.job.train.data for record in rows[cell.ref]}
    for sources in found.values():
        if len(sources) > 1:
            raise UsageError(
                f"The records found are of {len(sources)} different data sets. Say which with --data DIR (the folder)."
            )
    return rows


def row_runs(records_by_row: Mapping[str, list[Record]], *, split: str) -> dict[str, RowRuns]:
    """The same as the statistics need it: the metrics of each seed, and which rows share a seed deviation.

    Of a row's records only those with equal inputs (``choose``).
    """
    found = {ref: choose(records).kept for ref, records in records_by_row.items()}
    sources = list(dict.fromkeys(record.job.train.data for records in found.values() for record in records))
    names = families({ref: records[0].job.train for ref, records in found.items() if records})
    return {
        ref: RowRuns(
            ref=ref,
            pool=_pool_on(records[0].job.train, sources),
            family=names[ref],
            seeds=tuple(record.job.train.seed for record in records),
            train_ids=tuple(record.train_id for record in records),
            runs=tuple({**record.metrics, **score_figures(record)} for record in records),
            split=split,
        )
        for ref, records in found.items()
        if records
    }


def _pool_on(job: TrainJob, sources: Sequence[DataSource]) -> str:
    """The pool of a run; the user's own recipes may train on other data, where seeds may scatter otherwise."""
    number = sources.index(job.data)
    return pool_of(job) + (f", data set {number + 1}" if number else "")


def pool_of(job: TrainJob) -> str:
    """The name that runs of one backbone and schedule have in common: their seeds are taken to scatter alike."""
    return f"{job.model.backbone}/{job.schedule.iterations}"


def families(jobs: Mapping[str, TrainJob]) -> dict[str, str]:
    """By row, a name for what is alike: the loss, numbered where rows of it differ in more than its parameters."""
    kinds: dict[tuple[str, str], list[TrainJob]] = {}
    names = {}
    for ref, job in jobs.items():
        loss = loss_name(job)
        settings = replace(job, seed=0, loss=CrossEntropyConfig())  # any one loss: all that the job says besides
        alike = kinds.setdefault((pool_of(job), loss), [])
        if settings not in alike:
            alike.append(settings)
        number = alike.index(settings)
        names[ref] = loss + (f" with other settings ({number})" if number else "")
    return names


def loss_name(job: TrainJob) -> str:
    """``dr``, ``focal``, ``cross_entropy``, or the name of a loss from elsewhere."""
    return str(type(job.loss).__struct_config__.tag)
