"""Runs of rows that have no record yet, as their own files show them: no queue is asked. Free of torch.

What cannot be read is left out: a table is not the place to complain about a heartbeat, ``harness status`` does.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from detector.errors import RecordError
from detector.runs.folder import RunDir, read_train_job
from detector.runs.job import TrainJob
from detector.runs.log_lines import ap_by_iteration
from detector.runs.record import Record
from harness.failures.log_tail import tail
from harness.planning.selection import Selection
from harness.status.find import run_folders
from harness.status.kinds import LIVING, Kind
from harness.status.observe import NoScheduler, see
from harness.status.state import decide

WHOLE = 0  # of a log


@dataclass(frozen=True)
class InFlight:
    """A training that was begun and has no record yet.

    progress: share of its iterations, or while it is evaluated of its images; 0..1. ap: percent, of the evaluations on
    its way, by iteration.
    """

    seed: int
    kind: Kind
    progress: float | None
    ap: Mapping[int, float]

    @property
    def lives(self) -> bool:
        """Whether it runs, or waits for its turn."""
        return self.kind in LIVING


def in_flight(selection: Selection, records: Mapping[str, Sequence[Record]]) -> dict[str, tuple[InFlight, ...]]:
    """By row of the selection, its begun trainings without a record, by seed.

    records: of every row, as ``Selection.row_records`` has them. Nothing where only committed records are wanted.
    """
    store = selection.store
    if store.source == "committed":
        return {}
    shares = {ref: refs for refs in selection.trainings.values() for ref in refs}
    recorded = dict[str, set[str]]()  # by training, the rows that have its record
    for ref, found in records.items():
        for record in found:
            recorded.setdefault(record.train_id, set()).add(ref)
    rows: dict[str, list[InFlight]] = {}
    for run in run_folders(store.runs):
        has = recorded.get(run.root.name, set())
        if has and has.issuperset(shares.get(min(has), ())):
            continue
        with suppress(RecordError, OSError):
            job = read_train_job(run)
            refs = [ref for ref in _rows_of(job, selection) if ref not in has]
            if refs and (item := _look(run, job)) is not None:
                for ref in refs:
                    rows.setdefault(ref, []).append(item)
    return {ref: tuple(sorted(items, key=lambda item: item.seed)) for ref, items in rows.items()}


def _rows_of(job: TrainJob, selection: Selection) -> list[str]:
    return [ref for ref in selection.trainings.get(selection.training_key(job), ()) if ref in selection.refs]


def _look(run: RunDir, job: TrainJob) -> InFlight | None:
    status = run.read_status()
    state = decide(see(run, (), NoScheduler()), time.time())
    if state.kind == "not started":
        return None
    progress = state.progress
    if progress is None and status is not None and status.iteration:
        progress = status.iteration / max(1, status.iterations)
    known = status is not None and status.ap is not None
    return InFlight(job.seed, state.kind, progress, ap_on_the_way(run) if known else {})


def ap_on_the_way(run: RunDir) -> dict[int, float]:
    """Iteration -> AP (percent) of the evaluations while it trained, by its log; none where that cannot be read."""
    with suppress(OSError):
        return ap_by_iteration(tail(run.log, WHOLE))
    return {}


def ap_of_finished(
    selection: Selection, records: Mapping[str, Sequence[Record]], refs: Collection[str]
) -> dict[str, list[dict[int, float]]]:
    """By row, the same of each of its finished trainings whose folder is here."""
    runs = {ref: [selection.store.run_dir(record.train_id) for record in records.get(ref, ())] for ref in refs}
    return {ref: [ap for run in found if (ap := ap_on_the_way(run))] for ref, found in runs.items() if found}
