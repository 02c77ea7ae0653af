"""What stands behind the tables' numbers: by row its seeds and settings, and each run once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from msgspec import to_builtins

from detector.runs.record import Record
from harness.failures.log_tail import last_lines, tail
from harness.planning.selection import TEST_DEV
from harness.registry.declarations import METRICS
from harness.registry.ledger import plain
from harness.report.evidence.notes import row_notes, seed_of
from harness.report.evidence.show import data_text
from harness.report.page.grids import Cell, Grid, Line, anchor, number
from harness.report.page.places import Places
from harness.report.page.scales import Scale
from harness.report.page.settings import row_settings
from harness.report.page.tables import evidence_anchor, label
from harness.report.tables import RowView, TableView
from harness.report.text import mean_text

MOST_SEEDS: Final = 12  # of a row that are shown one by one
LOG_LINES: Final = 12
SETTING_NAMES: Final = ("setting", "value", "source")


@dataclass(frozen=True)
class RowPart:
    """The evidence of one row at one scale.

    seeds: a line for each run. settings: those in which the row departs from its recipe. same: other rows that the same
    trainings fill. more: how many seeds are not shown.
    """

    anchor: str
    ref: str
    label: str
    scale: str
    shown: str
    seeds: Grid
    more: int
    recipe: str
    recipe_anchor: str
    settings: Grid
    ledger: tuple[tuple[str, str], ...]
    same: tuple[str, ...]
    notes: tuple[str, ...]
    again: str


@dataclass(frozen=True)
class RunPart:
    """One finished evaluation. facts: name and value; unknown ones are not among them. log: its last lines."""

    anchor: str
    title: str
    facts: tuple[tuple[str, str], ...]
    starts: tuple[str, ...]
    health: tuple[str, ...]
    notes: tuple[str, ...]
    log: tuple[str, ...]


def row_parts(scale: Scale, view: TableView) -> list[RowPart]:
    """The evidence of a table's rows that have runs."""
    fills: dict[str, list[str]] = {}
    for ref, found in scale.chosen.items():
        for record in found.kept:
            fills.setdefault(record.train_id, []).append(ref)
    return [_row_part(scale, row, fills) for row in view.rows if row.ref in scale.chosen]


def _row_part(scale: Scale, row: RowView, fills: Mapping[str, Sequence[str]]) -> RowPart:
    chosen = scale.chosen[row.ref]
    records = sorted(chosen.kept, key=lambda record: (seed_of(record), record.eval_id))
    same = dict.fromkeys(ref for record in records for ref in fills[record.train_id] if ref != row.ref)
    settings = row_settings(scale, row.ref)
    every = [item.record for item in chosen.left_out] + records
    return RowPart(
        anchor=evidence_anchor(scale, row.ref),
        ref=row.ref,
        label=label(row),
        scale=scale.name,
        shown=f"AP {mean_text(row.ours['AP']).strip()}, n {len(row.seeds)}" if "AP" in row.ours else row.status,
        seeds=_seeds(scale, records[:MOST_SEEDS]),
        more=max(0, len(records) - MOST_SEEDS),
        recipe=settings.recipe,
        recipe_anchor=anchor("recipe", scale.name, settings.recipe),
        settings=Grid(
            "Where the row departs from its recipe",
            SETTING_NAMES,
            tuple(Line((Cell(path), Cell(plain(value)), Cell(source))) for path, value, source in settings.own),
            frozenset({0, 1, 2}),
        ),
        ledger=settings.ledger,
        same=tuple(same),
        notes=tuple(row_notes({row.ref: every}, [row.ref], scale.selection.store)),
        again=f"harness run {row.ref} --profile {scale.name} --seeds {seed_of(records[-1]) + 1}",
    )


def _seeds(scale: Scale, records: Sequence[Record]) -> Grid:
    lines = []
    for record in records:
        cells = [Cell(str(seed_of(record)), float(seed_of(record)), run_anchor(record))]
        cells += [number(record.metrics.get(metric), 2) for metric in METRICS]
        split = "the server's answer" if record.job.split == TEST_DEV else "the profile's test images"
        cells += [Cell(split), Cell(record.eval_id, href=run_anchor(record))]
        lines.append(Line(tuple(cells)))
    headings = ("seed", *METRICS, "measured on", "evaluation")
    return Grid("Runs", headings, tuple(lines), frozenset({0, len(METRICS) + 1, len(METRICS) + 2}))


def run_anchor(record: Record) -> str:
    """Where the run stands on the page."""
    return anchor("run", record.eval_id)


def run_parts(scale: Scale, places: Places) -> list[RunPart]:
    """Each run that a row shows one by one, once, in the order of the rows."""
    shown: dict[str, tuple[Record, list[str]]] = {}
    for ref, found in scale.chosen.items():
        for record in sorted(found.kept, key=lambda record: (seed_of(record), record.eval_id))[:MOST_SEEDS]:
            shown.setdefault(record.eval_id, (record, []))[1].append(ref)
    return [_run_part(scale, record, refs, places) for record, refs in shown.values()]


def _run_part(scale: Scale, record: Record, refs: Sequence[str], places: Places) -> RunPart:
    store = scale.selection.store
    run, path = store.run_dir(record.train_id), store.path_of(record)
    log = last_lines(tail(run.log, 4 * LOG_LINES), count=LOG_LINES) if run.log.exists() else []
    facts = [
        ("record", places.name(path)),
        ("training", record.train_id),
        ("finished", record.finished),
        ("took", f"{record.train_seconds:,.1f} s to train, {record.eval_seconds:,.1f} s to test"),
        ("data", data_text(record.job.train.data)),
        ("training images", _split(record.train_split)),
        ("test images", _split(record.test_split)),
        ("initial weights", _weights(record)),
        ("code", code_text(record)),
        ("environment", ", ".join(f"{name} {value}" for name, value in sorted(record.environment.items()))),
        ("log", places.name(run.log) if run.log.exists() else ""),
        ("again", f"harness run {refs[0]} --profile {record.profile} --seeds {seed_of(record) + 1}"),
    ]
    return RunPart(
        anchor=run_anchor(record),
        title=f"{' = '.join(refs)}, seed {seed_of(record)}",
        facts=tuple((name, value) for name, value in facts if value),
        starts=tuple(_start(to_builtins(start)) for start in record.starts),
        health=tuple(f"{item.name}: {item.message}" for item in record.health or ()),
        notes=tuple(record.notes),
        log=tuple(log),
    )


def _split(split: Any) -> str:
    return f"{split.images:,} with {split.boxes:,} boxes, annotations sha256 {split.sha256[:16]}"


def _weights(record: Record) -> str:
    if record.job.train.model.weights == "none":
        return "random"
    found = record.inputs.weights if record.inputs else None
    return f"{found.name}, sha256 {found.sha256[:16]}" if found else ""


def code_text(record: Record) -> str:
    """The version and the commit that ran."""
    code = record.code
    commit = f", commit {code.commit[:12]}" if code.commit else ""
    return f"{code.version}{commit}{', with changes of its own' if code.modified else ''}"


def _start(start: Mapping[str, Any]) -> str:
    code = start["code"]
    commit = f", commit {code['commit'][:12]}" if code.get("commit") else ""
    how = f"{start['processes']} process{'es' if start['processes'] > 1 else ''} of {start['threads']} threads"
    device = start["environment"].get("device", "")
    return f"{start['time']}: from iteration {start.get('iteration', 0)}{commit}, {how}, {start['precision']}, {device}"
