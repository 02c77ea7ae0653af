"""Finished trainings as TensorBoard's files: curves, final metrics, and the settings that its HPARAMS page compares."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from msgspec import to_builtins

from detector.errors import RecordError, UsageError
from detector.runs.record import Record
from detector.storage.outputs import path_part
from harness.report.export.curves import Point, logged_points, recorded_curve
from harness.report.export.records import ChosenRecords, flat

logger = logging.getLogger(__name__)

_SETTINGS = ("optimizer", "schedule", "batch")  # beside the loss: what trainings of one table may differ in


@dataclass(frozen=True)
class BoardRun:
    """One training. folder: its name in TensorBoard. points: of its curve. metrics: by tag, at the last iteration."""

    folder: PurePosixPath
    settings: Mapping[str, str | float]
    points: Sequence[Point]
    metrics: Mapping[str, float]
    iterations: int
    began: float  # seconds since the epoch
    ended: float


def board_runs(chosen: ChosenRecords) -> list[BoardRun]:
    """One run per training, with the metrics of all its evaluations."""
    trainings: dict[str, list[Record]] = {}
    for record in chosen.records:
        trainings.setdefault(record.train_id, []).append(record)
    position = {ref: i for i, ref in enumerate(chosen.wanted)}
    return _of_one_type([_run(chosen, records, position) for records in trainings.values()])


def _run(chosen: ChosenRecords, records: Sequence[Record], position: Mapping[str, int]) -> BoardRun:
    first = records[0]
    rows = list(dict.fromkeys(ref for record in records for ref in chosen.rows.get(record.eval_id, ())))
    rows.sort(key=lambda ref: position.get(ref, len(position)))
    ended = datetime.fromisoformat(first.finished).timestamp() - first.eval_seconds
    metrics = {
        f"{'test' if record is first else f'test-{record.eval_id}'}/{name}": value
        for record in records
        for name, value in record.metrics.items()
        if value is not None
    }
    return BoardRun(
        folder=_folder(rows, first),
        settings=_settings(first, rows),
        points=_points(chosen, first),
        metrics=metrics,
        iterations=first.job.train.schedule.iterations,
        began=ended - first.train_seconds,
        ended=ended,
    )


def _folder(rows: Sequence[str], record: Record) -> PurePosixPath:
    """``table2/L6/seed0-<training>``, by the first row that was asked for; ``other/...`` where it fills none."""
    row = rows[0] if rows else "other"
    parts = [path_part(part, "The row", raises=RecordError) for part in row.split("/")]
    return PurePosixPath(*parts, f"seed{record.job.train.seed}-{record.train_id}")


def _points(chosen: ChosenRecords, record: Record) -> list[Point]:
    """All that the run's folder has, else those that the record keeps."""
    run = chosen.store.run_dir(record.train_id)
    if chosen.store.source != "committed" and run.metrics.exists():
        try:
            return logged_points(run)
        except RecordError as error:
            logger.warning("the record's own points are taken: %s", error)
    return recorded_curve(record)


def _settings(record: Record, rows: Sequence[str]) -> dict[str, str | float]:
    """What TensorBoard compares: texts, numbers and truth values."""
    job: dict[str, Any] = to_builtins(record.job.train)
    plain: dict[str, Any] = {"rows": " ".join(rows), "profile": record.profile, "seed": record.job.train.seed}
    plain |= dict(flat({"loss": job["loss"]} | {name: job[name] for name in _SETTINGS}))
    plain |= {"model.backbone": record.job.train.model.backbone, "train_id": record.train_id}
    kept = {name: value if isinstance(value, str | int | float) else str(value) for name, value in plain.items()}
    return {name: value for name, value in kept.items() if plain[name] is not None}


def _of_one_type(runs: Sequence[BoardRun]) -> list[BoardRun]:
    """The same with every setting that is a text in some runs and a number in others as a text in all."""
    texts = {name for run in runs for name, value in run.settings.items() if isinstance(value, str)}
    return [
        replace(run, settings={name: str(value) if name in texts else value for name, value in run.settings.items()})
        for run in runs
    ]


def board_files(runs: Sequence[BoardRun]) -> Iterator[tuple[PurePosixPath, bytes]]:
    """(path, content) of each event file. The same runs give the same bytes.

    Times are those of the record: a point's time is spread evenly over the training's seconds. Raises UsageError where
    tensorboardX is not installed.
    """
    check_tensorboard()
    yield PurePosixPath("events.out.tfevents.0.harness"), _file([_experiment(runs)])
    for run in runs:
        yield run.folder / f"events.out.tfevents.{run.began:.0f}.{run.folder.name}", _file(_events(run))


def check_tensorboard() -> None:
    """Raises UsageError where tensorboardX is not installed."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "TensorBoard's files need the library tensorboardX, which is not installed. Install it: pip install "
            "tensorboardX. Or give --to csv."
        ) from error


def _file(events: Sequence[Any]) -> bytes:
    from tensorboardX.proto.event_pb2 import Event

    from detector.training.board import framed

    first = Event(wall_time=events[0].wall_time, file_version="brain.Event:2")
    return b"".join(framed(event.SerializeToString(deterministic=True)) for event in (first, *events))


def _events(run: BoardRun) -> list[Any]:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.summary import hparams, scalar

    _, start, end = hparams(dict(run.settings), {})
    events = [Event(wall_time=run.began, summary=_in_order(start))]
    for point in run.points:
        iteration = int(point["iteration"] or 0)
        share = min(1.0, iteration / max(1, run.iterations))
        time = run.began + share * (run.ended - run.began)
        events += [
            Event(step=iteration, wall_time=time, summary=scalar(f"train/{name}", value))
            for name, value in point.items()
            if name != "iteration" and value is not None
        ]
    last = {"step": run.iterations, "wall_time": run.ended}
    events += [Event(**last, summary=scalar(tag, value)) for tag, value in run.metrics.items()]
    return [*events, Event(wall_time=run.ended, summary=end)]


def _in_order(summary: Any) -> Any:
    """The same settings, which tensorboardX writes in an order that changes from one process to the next."""
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    plugin = summary.value[0].metadata.plugin_data
    plugin.content = HParamsPluginData.FromString(plugin.content).SerializeToString(deterministic=True)
    return summary


def _experiment(runs: Sequence[BoardRun]) -> Any:
    """What all runs may be compared by: every setting and every metric of any of them."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.summary import hparams

    settings = {name: value for run in runs for name, value in run.settings.items()}
    metrics = dict.fromkeys((tag for run in runs for tag in run.metrics), 0.0)
    summary, _, _ = hparams(settings, metrics)
    return Event(wall_time=min((run.began for run in runs), default=0.0), summary=summary)
