"""Settings with their sources, where the sources disagree, and what the rows with another value measured."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from harness.registry.claims import Claim, Contrast
from harness.registry.ledger import SILENT, deviations, plain
from harness.registry.load import Registry
from harness.registry.resolution import Resolution
from harness.registry.resolve import resolve, resolve_recipe
from harness.report.page.grids import DASH, Cell, Grid, Line, anchor
from harness.report.page.scales import Scale
from harness.report.page.tables import evidence_anchor
from harness.verdicts.measure import measure


@dataclass(frozen=True)
class RowSettings:
    """own: path, value and source where the row is not its recipe. ledger: where sources disagree, with the anchor."""

    recipe: str
    own: tuple[tuple[str, Any, str], ...]
    ledger: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class RecipePart:
    """A recipe at a scale, every setting with its source."""

    anchor: str
    name: str
    title: str
    grid: Grid


@dataclass(frozen=True)
class LedgerPart:
    """One setting on which the sources differ. measured: what the rows with another value show, at each scale."""

    anchor: str
    path: str
    says: tuple[tuple[str, str], ...]
    used: str
    why: str
    measured: Grid | None
    pending: tuple[str, ...]


def row_settings(scale: Scale, ref: str) -> RowSettings:
    """What distinguishes a row from its recipe at this scale."""
    registry, profile = scale.selection.registry, scale.selection.profile
    name = str(registry.row(ref)[1].recipe)
    resolution = resolve(registry, ref, profile)
    base = _recipe(scale, name)
    own = tuple(
        (path, resolution.get(path), source)
        for path, source in resolution.origins.items()
        if base.get(path) != resolution.get(path)
    )
    entries = registry.ledger.fields
    ledger = tuple(
        (item.entry.path, ledger_anchor(entries.index(item.entry))) for item in deviations(registry, ref, resolution)
    )
    return RowSettings(name, own, ledger)


@cache
def _recipe(scale: Scale, name: str) -> Resolution:
    return resolve_recipe(scale.selection.registry, name, scale.selection.profile)


def ledger_anchor(i: int) -> str:
    """Where an entry of the ledger stands on the page, by its place in the file."""
    return anchor("ledger", str(i))


def recipe_parts(scale: Scale) -> list[RecipePart]:
    """Every recipe of the selection's rows."""
    registry = scale.selection.registry
    names = dict.fromkeys(str(registry.row(ref)[1].recipe) for ref in scale.selection.refs)
    parts = []
    for name in names:
        resolution = resolve_recipe(registry, name, scale.selection.profile)
        lines = tuple(
            Line((Cell(path), Cell(plain(resolution.get(path))), Cell(source)))
            for path, source in sorted(resolution.origins.items())
        )
        title = registry.recipes[name].value.title
        grid = Grid(f"{name}, profile {scale.name}", ("setting", "value", "source"), lines, frozenset({0, 1, 2}))
        parts.append(RecipePart(anchor("recipe", scale.name, name), name, title, grid))
    return parts


def ledger_parts(scales: Sequence[Scale]) -> list[LedgerPart]:
    """The ledger's entries that concern a row of the targets, with what their ablations measured."""
    registry = scales[0].selection.registry
    used = _used(registry, scales)
    parts = []
    for i, entry in enumerate(registry.ledger.fields):
        if i not in used:
            continue
        stated = {"paper": entry.paper, "released": entry.released, "base codebase": entry.base, **entry.others}
        lines = [line for scale in scales for ref in entry.ablations if (line := _ablation(scale, ref))]
        found = {line.cells[0].text for line in lines}
        parts.append(
            LedgerPart(
                anchor=ledger_anchor(i),
                path=entry.path,
                says=tuple(
                    (name, "says nothing" if value == SILENT else plain(value)) for name, value in stated.items()
                ),
                used=used[i],
                why=entry.why,
                measured=Grid(
                    f"{entry.path}: measured with another value",
                    ("row with another value", "profile", "its AP", "beside", "AP", "difference"),
                    tuple(lines),
                    frozenset({0, 1, 3}),
                )
                if lines
                else None,
                pending=tuple(ref for ref in entry.ablations if ref not in found),
            )
        )
    return parts


def _used(registry: Registry, scales: Sequence[Scale]) -> dict[int, str]:
    """By entry, the values that rows of the targets use, the most common first."""
    found: dict[int, dict[str, int]] = {}
    for scale in scales:
        for ref in scale.selection.refs:
            for item in deviations(registry, ref, resolve(registry, ref, scale.selection.profile)):
                counts = found.setdefault(registry.ledger.fields.index(item.entry), {})
                counts[plain(item.used)] = counts.get(plain(item.used), 0) + 1
    return {
        i: "; ".join(
            f"{value} in {_rows(count)}" for value, count in sorted(counts.items(), key=lambda x: (-x[1], x[0]))
        )
        for i, counts in found.items()
    }


def _rows(count: int) -> str:
    return f"{count} row{'s' if count > 1 else ''}"


def _ablation(scale: Scale, ref: str) -> Line | None:
    """What a row with another value measured, beside the row of the same recipe as it is; None without runs."""
    runs, registry = scale.runs, scale.selection.registry
    values = runs.values(ref, "AP")
    if not values:
        return None
    cells = [Cell(ref, href=_evidence(scale, ref)), Cell(scale.name), _mean(values)]
    base = _beside(registry, str(registry.row(ref)[1].recipe), ref)
    if base is None or not runs.values(base, "AP"):
        return Line((*cells, Cell(base or DASH), Cell(DASH), Cell(DASH)))
    claim = Claim(
        id="difference",
        text="",
        where="",
        metric="AP",
        kind="greater",
        decidable_in=(),
        contrasts=(Contrast(ref, base),),
    )
    (pair,) = measure(claim, runs)
    half = f" ±{pair.estimate.half_width():.1f}" if pair.estimate else ""
    shown = Cell(f"{pair.value:+z.1f}{half}", pair.value)
    return Line((*cells, Cell(base, href=_evidence(scale, base)), _mean(runs.values(base, "AP")), shown))


def _evidence(scale: Scale, ref: str) -> str:
    return evidence_anchor(scale, ref) if ref in scale.chosen else ""


def _mean(values: Sequence[float]) -> Cell:
    mean = statistics.fmean(values)
    sd = f" ±{statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return Cell(f"{mean:.1f}{sd} (n {len(values)})", mean)


@cache
def _beside(registry: Registry, recipe: str, ref: str) -> str | None:
    """The row that is the recipe without a change; None where no table has it."""
    rows = ((f"{table.id}/{row.id}", row) for table in registry.tables.values() for row in table.rows)
    return next((name for name, row in rows if row.recipe == recipe and not row.set and name != ref), None)
