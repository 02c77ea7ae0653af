"""The tables of results: one per table and scale, and, of several scales, their AP side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.registry.declarations import METRICS
from harness.registry.ledger import table_notes
from harness.report.page.grids import DASH, TONES, Cell, Grid, Line, anchor, number
from harness.report.page.scales import Scale
from harness.report.progress.in_flight import progress_text, status_text
from harness.report.tables import RowView, TableView
from harness.report.text import difference_text, mean_text, title_text, verdict_text


@dataclass(frozen=True)
class TablePart:
    """A table of the paper, or of the user: its AP at several scales (None for one scale), then each scale's own."""

    id: str
    title: str
    together: Grid | None
    grids: tuple[tuple[Scale, Grid], ...]


def table_parts(scales: Sequence[Scale]) -> list[TablePart]:
    """Every table of which a scale shows rows, in the order of the files."""
    by_id: dict[str, list[tuple[Scale, TableView]]] = {}
    for scale in scales:
        for view in scale.tables:
            by_id.setdefault(view.id, []).append((scale, view))
    return [
        TablePart(
            id=name,
            title=title_text(found[0][1]),
            together=_together(found) if len(found) > 1 else None,
            grids=tuple((scale, table_grid(scale, view)) for scale, view in found),
        )
        for name, found in by_id.items()
    ]


def table_grid(scale: Scale, view: TableView) -> Grid:
    """Ours and the paper's numbers; the difference and the verdict on AP where they may be compared."""
    flying = in_flight(view)
    spans = [("", 2 + len(flying)), ("ours", len(METRICS)), ("paper", len(METRICS))]
    headings = [", ".join(view.columns), "n", *flying, *METRICS, *METRICS]
    words = {0, 2} if flying else {0}
    if view.compared:
        spans.append(("AP, ours - paper", 2))
        headings += ["difference", "verdict"]
        words.add(len(headings) - 1)
    return Grid(
        caption=f"Profile {view.profile}: {view.scale}",
        headings=tuple(headings),
        lines=tuple(_line(scale, view, i) for i in range(len(view.rows))),
        words=frozenset(words),
        spans=tuple(spans),
        notes=_notes(scale, view),
    )


def in_flight(view: TableView) -> tuple[str, ...]:
    """The headings of the columns that a table has while runs of it go on; none where all are finished."""
    if not any(row.in_flight for row in view.rows):
        return ()
    then = next((row.so_far.iteration for row in view.rows if row.so_far), None)
    return ("state",) if then is None else ("state", f"AP so far, iteration {then:,}")


def _progress(row: RowView) -> str:
    """``provisional, 1 of 3 seeds; running 43%``."""
    seeds = f", {len(row.seeds)} of {row.wanted} seeds" if row.ours and len(row.seeds) < row.wanted else ""
    runs = progress_text(row) if row.in_flight else ""
    state = "" if not row.ours and runs else row.state
    return "; ".join(filter(None, [f"{state}{seeds}", runs])) or DASH


def _notes(scale: Scale, view: TableView) -> tuple[str, ...]:
    """The table's footnotes; those on disagreeing sources have a section of their own."""
    trained = [row.ref for row in view.rows if not row.cited and row.status != "not at this scale"]
    elsewhere = table_notes(scale.selection.registry, scale.selection.profile, trained)
    return tuple(note for note in view.footnotes if note not in elsewhere)


def _line(scale: Scale, view: TableView, i: int) -> Line:
    row = view.rows[i]
    href = evidence_anchor(scale, row.ref) if row.ours else ""
    cells = [Cell(label(row)), Cell("" if row.cited else str(len(row.seeds)), float(len(row.seeds)))]
    if flying := in_flight(view):
        cells.append(Cell(_progress(row)))
    if len(flying) > 1:
        so_far = row.so_far
        cells.append(Cell(f"{so_far.ap:.1f} (n {so_far.n})", so_far.ap) if so_far else Cell(DASH))
    for j, metric in enumerate(METRICS):
        mean = row.ours.get(metric)
        if mean is not None:
            cells.append(Cell(mean_text(mean).strip(), mean.mean, href))
        else:
            cells.append(Cell(DASH if row.ours or j or (flying and row.state) else row.status))
    for metric in METRICS:
        value = row.published.get(metric)
        shown = DASH if value is None else f"{value:.1f}" if view.compared else f"({value:.1f})"
        cells.append(Cell(shown, value))
    if view.compared:
        verdict = row.verdicts.get("AP")
        cells.append(Cell(difference_text(verdict) or DASH, verdict.difference if verdict else None))
        words = verdict_text(verdict) if verdict else "" if row.cited else "pending"
        cells.append(Cell(words, tone=TONES.get(verdict.outcome if verdict else words, "")))
    before = view.rows[i - 1].group if i else None
    return Line(tuple(cells), f"{row.group} detectors" if row.group and row.group != before else "")


def _together(found: Sequence[tuple[Scale, TableView]]) -> Grid:
    """AP of each row at each scale. A row that one scale does not have is not there."""
    first = found[0][1]
    rows = {row.ref: row for _, view in found for row in view.rows}
    by_scale = [(scale, {row.ref: row for row in view.rows}) for scale, view in found]
    lines = []
    for ref, row in rows.items():
        cells = [Cell(label(row)), number(row.published.get("AP"))]
        for scale, of_scale in by_scale:
            cells += _ap_cells(scale, of_scale.get(ref))
        lines.append(Line(tuple(cells)))
    spans = (("", 1), ("paper", 1), *((f"profile {scale.name}", 2) for scale, _ in found))
    headings = (", ".join(first.columns), "AP", *(name for _ in found for name in ("n", "AP")))
    note = "Scales stand side by side so that the order of the rows can be compared; the numbers cannot."
    return Grid("AP at each scale", headings, tuple(lines), spans=spans, notes=(note,))


def _ap_cells(scale: Scale, row: RowView | None) -> list[Cell]:
    if row is None or row.cited:
        return [Cell(""), Cell(DASH)]
    mean = row.ours.get("AP")
    count = Cell(str(len(row.seeds)), float(len(row.seeds)))
    if mean is None:
        return [count, Cell(status_text(row))]
    return [count, Cell(mean_text(mean).strip(), mean.mean, evidence_anchor(scale, row.ref))]


def label(row: RowView) -> str:
    """The row's name as the table has it, on one line."""
    return ", ".join(row.label)


def evidence_anchor(scale: Scale, ref: str) -> str:
    """Where the evidence of a row at a scale stands on the page."""
    return anchor("row", scale.name, ref)
