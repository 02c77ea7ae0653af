"""A table for a terminal of any width: words stay whole, and what does not fit is named below."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product, zip_longest
from typing import Final

from detector.storage.shown import one_line
from harness.registry.declarations import METRICS
from harness.report.progress.in_flight import also_text, so_far_text, status_text
from harness.report.tables import RowView, TableView
from harness.report.text import difference_text, mean_text, n_text, table_legend, title_text, verdict_text
from harness.report.typeset.notes import chosen_notes
from harness.report.typeset.options import Notes

WIDEST: Final = 120  # longer lines are harder to read than they are useful
_LABELS: Final = 44
_NARROW: Final = 22
_FEWER: Final = (METRICS, METRICS[:3], METRICS[:1])


Line = tuple[list[str], str]  # cells, and free text behind them, which makes no column wider


@dataclass(frozen=True)
class Plan:
    """One way to draw it. every_sd: the deviation of each metric, else of AP alone. gap: spaces between columns.

    merged: the labels of a row below each other in one column.
    """

    metrics: tuple[str, ...]
    every_sd: bool
    merged: bool
    gap: int


def terminal_table(view: TableView, width: int, notes: Notes) -> str:
    """The table in lines of at most ``width`` letters, if any way to draw it is as narrow; then its notes."""
    width = min(width, WIDEST)
    for plan in (Plan(*plan) for plan in product(_FEWER, (True, False), (False, True), (2, 1))):
        lines = _draw(view, plan)
        if max(map(len, lines)) <= width:
            break
    below = [*chosen_notes(view, notes), *(_legend(view, plan, lines) if notes != "none" else ())]
    wrapped = [line for note in below for line in _wrap(note, width, "- ", "  ")]
    return "\n".join([*_wrap(title_text(view), width, "", "  "), "", *lines, *wrapped])


def _draw(view: TableView, plan: Plan) -> list[str]:
    names = [" / ".join(view.columns)] if plan.merged else list(view.columns)
    head = [*names, "", "n", *plan.metrics]
    lines: list[Line] = []
    group = None
    for row in view.rows:
        if row.group != group and row.group:
            lines.append(([], f"{row.group} detectors"))
        group = row.group
        for label, line in zip_longest(_labels(row, plan), _block(row, view.compared, plan)):
            cells, text = line or ([], "")
            lines.append(([*(label or [""] * len(names)), *cells], text))
    columns = zip_longest(head, *(cells for cells, _ in lines), fillvalue="")
    widths = [max(map(len, column)) for column in columns]
    gap = " " * plan.gap

    def join(cells: Sequence[str], text: str = "") -> str:
        padded = (cell.ljust(size) for cell, size in zip(cells, widths, strict=False))
        return gap.join([*padded, text]).rstrip()

    rule = gap.join("-" * size for size in widths)
    return [join(head), rule, *(join(*line) for line in lines), rule]


def _labels(row: RowView, plan: Plan) -> Iterator[tuple[str, ...]]:
    """The lines of a row's labels."""
    room = _NARROW if not plan.every_sd else _LABELS if plan.merged else _LABELS // len(row.label)
    wrapped = [_wrap(one_line(text), room, "", "") for text in row.label]
    if plan.merged:
        yield from ((line,) for lines in wrapped for line in lines)
    else:
        yield from zip_longest(*wrapped, fillvalue="")


def _block(row: RowView, compared: bool, plan: Plan) -> list[Line]:
    """The lines of a row without its labels."""
    lines: list[Line] = []
    if row.ours:
        lines.append(
            (["ours", n_text(row), *_short([mean_text(row.ours.get(name)) for name in plan.metrics], plan)], "")
        )
    elif not row.cited:
        lines.append((["ours", n_text(row)], status_text(row)))
    if text := so_far_text(row):
        lines.append((["", ""], text))
    if row.published:
        shown = "{:4.1f}" if compared else "({:.1f})"
        numbers = (shown.format(row.published[name]) for name in plan.metrics)
        lines.append((["cited" if row.cited else "paper", "", *numbers], ""))
    if row.verdicts:
        differences = [difference_text(row.verdicts.get(metric)) for metric in plan.metrics]
        lines.append((["diff", "", *_short(differences, plan)], ""))
        lines.append((["", ""], f"AP {verdict_text(row.verdicts['AP'])}"))
    return lines


def _short(texts: Sequence[str], plan: Plan) -> list[str]:
    """Numbers, with what follows ± where the plan has room for it."""
    return [text if plan.every_sd or i == 0 else text.split(" ±")[0] for i, text in enumerate(texts)]


def _legend(view: TableView, plan: Plan, lines: Sequence[str]) -> list[str]:
    """What the signs and abbreviations in the table mean, and what it leaves out."""
    measured = [row for row in view.rows if row.ours]
    said = [words] if (words := table_legend(view, "\n".join(lines))) else []
    left = METRICS[len(plan.metrics) :]
    deviations = not plan.every_sd and any(mean.sd is not None for row in measured for mean in row.ours.values())
    if left or deviations:
        hidden = " and ".join(filter(None, [", ".join(left), "most ±" if deviations else ""]))
        said.append(f"No room for {hidden}: widen the terminal, or add --format csv.")
    if shared := [f"{' '.join(row.label)} ({also_text(row)})" for row in view.rows if row.also]:
        said.append(f"Trained once for several rows: {'; '.join(shared)}.")
    return said


def _wrap(text: str, width: int, bullet: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=bullet,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
