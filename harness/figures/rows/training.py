"""The curves of a row's trainings: of their records, else of the runs' folders, also of those that are not finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from detector.errors import RecordError
from detector.runs.findings import MOST_POINTS
from detector.runs.folder import RunDir, read_train_job
from detector.runs.job import AnnotatedFolder, TrainJob
from detector.runs.log_lines import ap_by_iteration
from detector.runs.record import Record
from detector.storage.reading import read_bytes
from harness.figures.rows.shown import labels, shown_rows
from harness.planning.selection import Selection
from harness.store.curves import read_curve
from harness.store.replaced import RUN_FOLDER

CURVES: Final = ("classification", "bbox_regression", "lr")
SO_FAR: Final = "AP"  # of evaluations during the training; the last point is that of the record
_MOST_LOG: Final = 256 * 2**20  # bytes

Points = Mapping[int, float]  # iteration -> value


@dataclass(frozen=True)
class Training:
    """The curves of one training, by name; a curve of which nothing is known is left out.

    done: 1 for a finished one, else the share of its iterations that was logged.
    """

    seed: int
    curves: Mapping[str, Points]
    done: float = 1.0


@dataclass(frozen=True)
class RowCurves:
    """A row's trainings. job: of any of them. unknown: finished ones of which no curve is known."""

    label: str
    job: TrainJob
    finished: tuple[Training, ...] = ()
    unfinished: tuple[Training, ...] = field(default=())
    unknown: int = 0


def row_curves(selection: Selection) -> list[RowCurves]:
    """Of each of the target's rows that has a training, in its order; rows that are the same trainings once."""
    shown = shown_rows(selection, same=lambda record: record.train_id)
    begun = _unfinished(selection)
    found: dict[str, RowCurves] = {}
    for row in shown:
        job = row.records[0].job.train
        known = [_finished(record, selection.store.run_dir(record.train_id)) for record in row.records]
        whole = tuple(training for training in known if training.curves.keys() - {SO_FAR})
        _, on_way = begun.pop(_key(job), ((), ()))
        found[row.ref] = RowCurves(row.label, job, whole, tuple(on_way), len(known) - len(whole))
    names = labels(selection.refs)
    for job, (refs, on_way) in begun.items():
        found[refs[0]] = RowCurves(" = ".join(names[ref] for ref in refs), job, (), tuple(on_way))
    return [found[ref] for ref in selection.refs if ref in found]


def _key(job: TrainJob) -> TrainJob:
    """What a row's trainings share, whatever the seed and the data set."""
    data = job.data
    if isinstance(data, AnnotatedFolder):
        data = replace(data, train_sha256=None, test_sha256=None)
    return replace(job, seed=0, data=data)


def _finished(record: Record, run: RunDir) -> Training:
    curves = dict[str, Points]()
    if record.curves is not None:
        for name in CURVES:
            values = record.curves.values.get(name, ())
            pairs = zip(record.curves.iterations, values, strict=False)
            if points := {iteration: value for iteration, value in pairs if value is not None}:
                curves[name] = points
    else:
        curves |= _logged(run)[0]
    so_far = _so_far(run)
    final = record.metrics.get("AP")
    if so_far and final is not None:
        curves[SO_FAR] = so_far | {record.job.train.schedule.iterations: final}
    return Training(record.job.train.seed, curves)


def _logged(run: RunDir) -> tuple[dict[str, Points], int]:
    """Curves of the run's log, thinned as those of records are, and the last logged iteration."""
    try:
        lines = read_curve(run) if run.metrics.exists() else []
    except RecordError:  # damaged: what is left of the run shows as without curves
        lines = []
    count = min(MOST_POINTS, len(lines))
    kept = [lines[round(i * (len(lines) - 1) / max(1, count - 1))] for i in range(count)]
    curves = {name: {int(line["iteration"]): line[name] for line in kept if name in line} for name in CURVES}
    return {name: points for name, points in curves.items() if points}, int(kept[-1]["iteration"]) if kept else 0


def _so_far(run: RunDir) -> dict[int, float]:
    with suppress(RecordError):
        if run.log.exists():
            return ap_by_iteration(read_bytes(run.log, most=_MOST_LOG).decode(errors="replace"))
    return {}


Begun = tuple[Sequence[str], Sequence[Training]]  # rows, and what they have begun


def _unfinished(selection: Selection) -> dict[TrainJob, Begun]:
    """Trainings of the target's rows that logged something and have no record, by what a row's trainings share."""
    recorded = {record.train_id for record in selection.store.records}
    runs = [RunDir(path) for path in sorted(selection.store.runs.glob(RUN_FOLDER)) if path.name not in recorded]
    if not runs or not selection.refs:
        return {}
    rows: dict[TrainJob, list[str]] = {}
    for cell in (cell for plan in selection.reading_plans(selection.refs) for cell in plan.cells):
        refs = rows.setdefault(_key(cell.job.train), [])
        if cell.ref not in refs:
            refs.append(cell.ref)
    found: dict[TrainJob, list[Training]] = {}
    for run in runs:
        with suppress(RecordError, OSError):  # a folder of another user, or no run
            job = read_train_job(run)
            if (key := _key(job)) in rows and (training := _on_its_way(job, run)) is not None:
                found.setdefault(key, []).append(training)
    return {key: (rows[key], sorted(begun, key=lambda training: training.seed)) for key, begun in found.items()}


def _on_its_way(job: TrainJob, run: RunDir) -> Training | None:
    """None where it logged nothing yet."""
    curves, last = _logged(run)
    if so_far := _so_far(run):
        curves[SO_FAR] = so_far
    return Training(job.seed, curves, min(1.0, last / job.schedule.iterations)) if curves else None
