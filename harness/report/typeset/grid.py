"""A filled table as cells of a LaTeX table: whose numbers stand in which column and line, and which are the best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from detector.storage.shown import one_line
from harness.report.progress.in_flight import so_far_text, status_text
from harness.report.tables import Mean, RowView, TableView
from harness.report.text import difference_text, n_text
from harness.report.typeset.options import Look
from harness.report.typeset.symbols import latex_cell, latex_text


@dataclass(frozen=True)
class Cell:
    """A cell as TeX, the same as plain text for its width, and over how many columns it stands."""

    tex: str
    plain: str
    span: int = 1
    bold: bool = False


@dataclass(frozen=True)
class Shape:
    """One way to lay the table out.

    stacked: the paper's numbers below ours. sd: of which metrics the deviation is shown. gap: points beside a column.
    merged: a row's labels in one cell; where it is stacked too, on a line of its own.
    """

    stacked: bool
    sd: Literal["all", "first", "none"]
    size: str
    gap: float
    merged: bool = False


@dataclass(frozen=True)
class Grid:
    """Lines under two rows of headings; the first ``num_labels`` columns are text. heads: line -> what stands above."""

    spans: tuple[tuple[str, int], ...]
    headings: tuple[Cell, ...]
    lines: tuple[tuple[Cell, ...], ...]
    num_labels: int
    heads: dict[int, str]


def grid_of(view: TableView, look: Look, columns: Sequence[str], shape: Shape) -> Grid:
    """The cells of a table in one shape. columns: of ``COLUMNS``."""
    best = best_means(view, look.metrics)
    labels = _labels(view.columns, shape)
    metrics = tuple(Cell(latex_text(name), name) for name in look.metrics)
    n = (Cell("$n$", "n"),) if "n" in columns else ()
    if shape.stacked:
        spans: tuple[tuple[str, int], ...] = ()
        labels = () if shape.merged else labels
        headings = (*labels, Cell("", "paper"), *n, *metrics)
    else:
        sides = [side for side in ("ours", "paper") if side in columns]
        both = len(sides) > 1 or (view.compared and "diff" in columns)
        ends = [name for name in ("diff", "verdict") if name in columns]
        spans = (("", len(labels) + len(n)), *((side, len(metrics)) for side in sides)) if both else ()
        spans += (("AP", len(ends)),) if both and ends else ()
        headings = (*labels, *n, *(metrics * len(sides)), *(Cell(name, name) for name in ends))
    lines: list[tuple[Cell, ...]] = []
    heads, group = {}, None
    for row in view.rows:
        if row.group != group and row.group:
            heads[len(lines)] = f"{row.group} detectors"
        group = row.group
        lines += _lines(row, view, look, columns, shape, best)
    return Grid(spans, headings, tuple(lines), len(labels) + shape.stacked, heads)


def _labels(texts: Sequence[str], shape: Shape) -> tuple[Cell, ...]:
    texts = [one_line(text) for text in texts]
    cells = tuple(Cell(latex_cell(text), text) for text in texts)
    if not shape.merged:
        return cells
    return (Cell(", ".join(cell.tex for cell in cells), ", ".join(texts)),)


def _lines(
    row: RowView, view: TableView, look: Look, columns: Sequence[str], shape: Shape, best: dict[str, str]
) -> Iterator[tuple[Cell, ...]]:
    labels = _labels(row.label, shape)
    n = (_plain("" if row.cited else n_text(row)),) if "n" in columns else ()
    ours, paper = _ours(row, look, shape, best), _papers(row, view, look)
    if not shape.stacked:
        if row.cited and "paper" not in columns:  # as in the paper's own table, among the others
            ours = paper
        sides = [*(ours if "ours" in columns else ()), *(paper if "paper" in columns else ())]
        yield (*labels, *n, *sides, *_ends(row, columns))
        return
    blank = tuple(_plain("") for _ in labels)
    if shape.merged:
        yield (replace(labels[0], span=1 + len(n) + len(look.metrics)),)
        labels = blank = ()
    if not row.cited:
        yield (*labels, _plain("ours"), *n, *ours)
    if row.published:
        empty = tuple(_plain("") for _ in n)
        yield (*(labels if row.cited else blank), _plain("cited" if row.cited else "paper"), *empty, *paper)
    if row.verdicts and ("diff" in columns or "verdict" in columns):
        said = _plain(" ".join(cell.plain for cell in _ends(row, columns)), span=len(n) + len(look.metrics))
        yield (*blank, _plain("AP"), said)


def _ours(row: RowView, look: Look, shape: Shape, best: dict[str, str]) -> tuple[Cell, ...]:
    if not row.ours:
        text = "; ".join(filter(None, ["" if row.cited else status_text(row), so_far_text(row)]))
        return (_plain(text, span=len(look.metrics)),)
    return tuple(
        _mean(row.ours.get(metric), sd=shape.sd == "all" or (shape.sd == "first" and i == 0), best=best.get(metric))
        for i, metric in enumerate(look.metrics)
    )


def _mean(value: Mean | None, *, sd: bool, best: str | None) -> Cell:
    if value is None:
        return Cell("--", "--")
    number = f"{value.mean:.1f}"
    tex = f"\\textbf{{{number}}}" if number == best else number
    shown = f"±{value.sd:.1f}" if sd and value.sd is not None else ""
    return Cell(tex + latex_text(shown), number + shown, bold=number == best)


def _papers(row: RowView, view: TableView, look: Look) -> tuple[Cell, ...]:
    shown = "{:.1f}" if view.compared else "({:.1f})"
    return tuple(_plain(shown.format(row.published[name]) if name in row.published else "") for name in look.metrics)


def _ends(row: RowView, columns: Sequence[str]) -> list[Cell]:
    verdict = row.verdicts.get("AP")
    cells = {
        "diff": difference_text(verdict).replace(" ", ""),
        "verdict": "" if verdict is None else verdict.outcome + ("*" if verdict.provisional else ""),
    }
    return [_plain(cells[name]) for name in ("diff", "verdict") if name in columns]


def _plain(text: str, span: int = 1) -> Cell:
    if text[:1] in ("+", "-") and text[1:2].isdigit():  # a number's sign, not a hyphen
        return Cell(f"${text[0]}${latex_text(text[1:])}", f"+{text[1:]}", span)
    return Cell(latex_text(text), text, span)


def best_means(view: TableView, metrics: Sequence[str]) -> dict[str, str]:
    """By metric the largest of our means as it is printed, where there are several rows to be better than."""
    found = {}
    for metric in metrics:
        means = [row.ours[metric].mean for row in view.rows if metric in row.ours and not row.cited]
        if len(means) > 1:
            found[metric] = f"{max(means):.1f}"
    return found
