"""``harness show``, as data: the records behind a row's number, each with all that it says of where it is from."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from shlex import quote
from typing import Any

from msgspec import to_builtins
from msgspec.structs import replace

from detector.errors import UsageError, did_you_mean
from detector.runs.job import AnnotatedFolder, CocoRelease, DataSource, Shapes
from detector.runs.provenance import Start
from detector.runs.record import COCO_METRICS, SCORE_METRICS, Record
from harness.folders import results_folder, runs_folder
from harness.planning.selection import TEST_DEV, Selection, records_elsewhere
from harness.planning.unequal import choose
from harness.registry.load import Registry
from harness.report.evidence.notes import format_one_note, row_notes, store_notes
from harness.report.evidence.rows import rows_by_record
from harness.store.records import Source, Store

UNKNOWN = "unknown"
LEAST_DIGITS = 4  # of an id that is not written in full


def evidence(selection: Selection, metric: str) -> dict[str, Any]:
    """The rows of a selection: their mean, their records, those left out, and what must be known of them.

    Rows of a test-dev table have a second entry for the server's answers, where there are any. Raises UsageError for a
    metric that no record has.
    """
    own, server = selection.row_records(), selection.row_records(TEST_DEV)
    every = [record for found in (own, server) for ref in selection.refs for record in found.get(ref, ())]
    _check_metric(metric, every)
    rows = [_row(selection, ref, own.get(ref, ()), metric, "the profile's test images") for ref in selection.refs]
    rows += [_row(selection, ref, server[ref], metric, TEST_DEV) for ref in selection.refs if server.get(ref)]
    where = "" if every else records_elsewhere(selection)
    return {
        "target": selection.target,
        "profile": selection.profile.name,
        "metric": metric,
        "departures": selection.departures,
        "rows": rows,
        "notes": [*([where] if where else []), *store_notes(own, selection.refs, selection), *_lacking(every)],
    }


def evidence_of(name: str, metric: str, source: Source | None) -> dict[str, Any] | None:
    """The same of one evaluation or training, named by the first digits of its id; None where no id begins so.

    Raises UsageError where ids of several trainings do.
    """
    store = Store(runs_folder(), results_folder(), source)
    found = [r for r in store.records if r.eval_id.startswith(name) or r.train_id.startswith(name)]
    if len(name) < LEAST_DIGITS or not found:
        return None
    if len({record.train_id for record in found}) > 1:
        listed = ", ".join(record.eval_id for record in found[:5])
        raise UsageError(f"{name!r} names {len(found)} evaluations: {listed}. Give more digits.")
    _check_metric(metric, found)
    rows = rows_by_record(Registry(), store, [found[0].profile])
    lines = [_record(store, record, metric, rows.get(record.eval_id, ()), "") for record in found]
    return {
        "target": name,
        "profile": found[0].profile,
        "metric": metric,
        "departures": "",
        "rows": [{"ref": name, "split": UNKNOWN, "mean": None, "sd": None, "records": lines, "notes": []}],
        "notes": list(_lacking(found)),
    }


def _check_metric(metric: str, records: Sequence[Record]) -> None:
    of_records = dict.fromkeys(name for record in records for name in record.metrics)
    known = list(of_records or (*COCO_METRICS, *SCORE_METRICS))
    if metric not in known:
        have = "These records have" if of_records else "Known"
        raise UsageError(f"Unknown metric {metric!r}. {have}: {', '.join(known)}.{did_you_mean(metric, known)}")


def _lacking(records: Sequence[Record]) -> list[str]:
    note = format_one_note({record.eval_id: record for record in records}.values())
    return [note] if note else []


def _row(selection: Selection, ref: str, records: Sequence[Record], metric: str, split: str) -> dict[str, Any]:
    chosen, store = choose(records), selection.store
    values = [value for record in chosen.kept if (value := record.metrics.get(metric)) is not None]
    options = f" {selection.departures}" if selection.departures else ""

    def line(record: Record) -> dict[str, Any]:
        command = f"harness run {ref} --profile {record.profile} --seeds {record.job.train.seed + 1}{options}"
        return _record(store, record, metric, (ref,), command)

    return {
        "ref": ref,
        "split": split,
        "mean": statistics.fmean(values) if values else None,
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "records": [line(record) for record in chosen.kept],
        "left_out": [line(item.record) | {"why": list(item.why)} for item in chosen.left_out],
        "notes": list(row_notes({ref: records}, [ref], store)),
    }


def _record(store: Store, record: Record, metric: str, rows: Sequence[str], command: str) -> dict[str, Any]:
    """All that is known of one record. What it does not say is the word ``unknown``."""
    run, other, path = store.run_dir(record.train_id), store.overruled(record), store.path_of(record)
    old = record.format == 1
    inputs = to_builtins(record.inputs) if record.inputs is not None else {}
    weights = "random" if record.job.train.model.weights == "none" else inputs.get("weights") or UNKNOWN
    return {
        "rows": list(rows),
        "seed": record.job.train.seed,
        "value": record.metrics.get(metric),
        "source": "local" if path.is_relative_to(store.runs) else "committed",
        "committed_value": None if other is None else other.metrics.get(metric),
        "record": str(path),
        "format": record.format,
        "evaluation": record.eval_id,
        "training": record.train_id,
        "finished": record.finished,
        "train_seconds": record.train_seconds,
        "eval_seconds": record.eval_seconds,
        "starts": UNKNOWN if old or not record.starts else [_start(start) for start in record.starts],
        "evaluated": UNKNOWN if record.evaluation is None else _start(record.evaluation),
        "code": to_builtins(record.code),
        "environment": dict(record.environment),
        "data": data_text(record.job.train.data),
        "train_split": to_builtins(record.train_split),
        "test_split": to_builtins(record.test_split),
        "weights": weights,
        "train_images": inputs.get("train_images") or UNKNOWN,
        "test_images": inputs.get("test_images") or UNKNOWN,
        "health": UNKNOWN if record.health is None and old else [to_builtins(item) for item in record.health or ()],
        "notes": list(record.notes),
        "log": str(run.log) if run.log.exists() else None,
        "final": str(run.final) if run.final.exists() else None,
        "again": command or again(record, rows),
    }


def _start(start: Start) -> dict[str, Any]:
    plain: dict[str, Any] = to_builtins(start)
    return plain


def again(record: Record, rows: Sequence[str]) -> str:
    """The command that trains the same; without a row, that of a run with options, as far as its notes say them."""
    seeds = record.job.train.seed + 1
    changed = [note.partition(": ")[2] for note in record.notes if note.startswith("overridden by --set")]
    batch = [note.split(":", 1)[0] for note in record.notes if note.startswith("--batch-size")]
    options = [*batch, *(f"--set {quote(text)}" for line in changed for text in re.split(r", (?=[\w.]+=)", line))]
    row = rows[0] if rows else nearest_row(record)
    return " ".join([f"harness run {row} --profile {record.profile} --seeds {seeds}", *options])


def nearest_row(record: Record) -> str:
    """Of the profile's rows the one whose training differs from the record's in the fewest settings."""
    registry = Registry()
    if record.profile not in registry.profiles:
        return "ROW"
    selection = Selection("all", record.profile, [], None)
    refs = [ref for table in registry.tables.values() for ref in table.refs(record.profile)]
    mine = _settings(to_builtins(replace(record.job.train, seed=0)))
    distances: dict[str, int] = {}
    for cell in selection.plan_of(refs, 1, from_scratch=record.job.train.model.weights == "none").cells:
        theirs = _settings(to_builtins(cell.job.train))
        distances.setdefault(cell.ref, len(mine ^ theirs))
    return min(distances, key=lambda ref: distances[ref], default="ROW")


def _settings(value: Any, path: str = "") -> set[tuple[str, str]]:
    if isinstance(value, dict):
        return set().union(*(_settings(item, f"{path}.{name}") for name, item in value.items()))
    return {(path, repr(value))}


def data_text(source: DataSource) -> str:
    """The data set as a job names it."""
    if isinstance(source, Shapes):
        return (
            f"generated shapes, version {source.version}, seed {source.seed}: {source.num_train:,} + "
            f"{source.num_test:,} images of {source.size} px"
        )
    if isinstance(source, CocoRelease):
        return f"COCO {source.release}: {source.train_split}, {source.test_split}"
    assert isinstance(source, AnnotatedFolder)
    return f"a folder by its annotations: {source.train_split}, {source.test_split}"
