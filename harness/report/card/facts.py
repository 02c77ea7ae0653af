"""What a model card says, as data: one run, its row, its settings with their sources, its files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from detector.errors import UsageError
from detector.runs.folder import RunDir
from detector.runs.job import CocoRelease, Shapes
from detector.runs.record import Record
from detector.storage.reading import LARGE, regular_file
from harness.planning.selection import Selection
from harness.registry.declarations import Profile
from harness.registry.load import Registry
from harness.report.compare.operands import find_side, sides_elsewhere
from harness.report.evidence.rows import rows_by_record
from harness.report.explanation import explanation
from harness.report.export.records import flat
from harness.report.tables import RowView
from harness.report.views import table_views

CODE_LICENCE = "Apache-2.0"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class CardFacts:
    """One run. row: None where it fills none. settings: (path, value, source). files: sha256 by path in its folder."""

    record: Record
    rows: tuple[str, ...]
    row: RowView | None
    profile: Profile | None
    settings: tuple[tuple[str, Any, str], ...]
    deviations: tuple[Mapping[str, Any], ...]
    files: Mapping[str, str]

    @property
    def compared(self) -> bool:
        """Whether its numbers may stand against the paper's."""
        return self.row is not None and self.profile is not None and self.profile.compare_with_paper


def card_facts(name: str, profile: str, seed: int | None) -> CardFacts:
    """The facts of one run.

    name: a row (with ``profile`` and ``seed``; None for the lowest), an id or its first digits, a run's folder, or a
    record's file. Raises UsageError where that names no finished run, or several.
    """
    every = Selection("all", profile, [], None)
    side = find_side(name, every, None)
    fitting = [item for item in side.measured if seed in (None, item.record.job.train.seed)]
    if not fitting:
        there = f" It has the seeds {', '.join(map(str, side.seeds))}." if side.seeds else ""
        of_seed = f", seed {seed}" if seed is not None else ""
        command = f" Make it: {side.command} --seeds {(seed or 0) + 1}" if side.command else ""
        elsewhere = sides_elsewhere([name], every) if not side.measured else ""
        where = f" {elsewhere}" if elsewhere else ""
        raise UsageError(f"No finished run of {name}{of_seed}, profile {profile}.{there}{where}{command}")
    record, run = fitting[0].record, fitting[0].run
    registry = Registry()
    known = record.profile in registry.profiles
    selection = Selection("all", record.profile, [], None) if known else None
    found = rows_by_record(registry, selection.store, [record.profile]) if selection is not None else {}
    rows = found.get(record.eval_id, ())
    ref = name if name in rows else next(iter(rows), None)
    settings, deviations = _settings(record, ref)
    return CardFacts(
        record=record,
        rows=rows,
        row=_row_view(ref, record.profile) if ref is not None else None,
        profile=registry.profile(record.profile) if known else None,
        settings=settings,
        deviations=deviations,
        files=_files(run, record),
    )


def _row_view(ref: str, profile: str) -> RowView | None:
    views = table_views(Selection(ref, profile, [], None))
    return next((row for view in views for row in view.rows if row.ref == ref), None)


def _settings(
    record: Record, ref: str | None
) -> tuple[tuple[tuple[str, Any, str], ...], tuple[Mapping[str, Any], ...]]:
    """Every value that the training and its test were made with, and where it is from."""
    if ref is None:
        job = to_builtins(record.job)
        plain = flat({**job["train"], "test": job["test"]})
        return tuple((path, value, "the run's own job") for path, value in plain if path != "seed"), ()
    data = explanation(ref, record.profile, [])
    found = tuple((item["path"], item["value"], item["source"]) for item in data["settings"])
    return found, tuple(data["deviations"])


def _files(run: RunDir, record: Record) -> dict[str, str]:
    """What ``detector.load_run`` needs, in a folder of any name."""
    needed = (run.final, run.job, run.record(record.eval_id))
    return {str(path.relative_to(run.root)): _sum(path) for path in needed if path.is_file()}


def _sum(path: Path) -> str:
    with regular_file(path, most=LARGE) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def data_licence(record: Record) -> str:
    """What is known of the licence of the data that the run was trained on."""
    source = record.job.train.data
    if isinstance(source, Shapes):
        return "images and annotations were drawn by this software; no work of others is in them"
    if isinstance(source, CocoRelease):
        return "annotations CC BY 4.0 (COCO Consortium); images under Flickr's terms of use, each of its photographer"
    return UNKNOWN


def began_with(record: Record) -> str:
    """The weights that the training began with, and their licence."""
    if record.job.train.model.weights == "none":
        return "random weights, which have no licence"
    weights = record.inputs.weights if record.inputs is not None else None
    if weights is None:
        return f"ImageNet weights ({record.job.train.model.weights}), content and licence {UNKNOWN}"
    return f"ImageNet weights {weights.name}, sha256 {weights.sha256}, licence {UNKNOWN}"
