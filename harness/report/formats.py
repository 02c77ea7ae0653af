"""Tables and verdicts as text, Markdown, LaTeX, CSV, JSON or HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import msgspec

from detector.errors import UsageError, did_you_mean
from detector.storage.sheets import csv_text
from harness.registry.declarations import METRICS
from harness.report.check import CheckView, Verdicts
from harness.report.markup import TextTable, html_document, html_fragment, markdown
from harness.report.progress.in_flight import so_far_text, status_text
from harness.report.tables import RowView, TableView
from harness.report.text import (
    WIDTH,
    check_text,
    difference_text,
    explanation_text,
    mean_text,
    measured_text,
    n_text,
    table_text,
    title_text,
    verdict_text,
)
from harness.report.typeset.notes import chosen_notes
from harness.report.typeset.options import Look
from harness.report.typeset.paper import paper_latex
from harness.report.typeset.prose import prose_latex
from harness.report.typeset.terminal import terminal_table
from harness.verdicts.judge import ClaimVerdict

FORMATS = ("text", "md", "latex", "csv", "json", "html")
_MARKUP = {"md": markdown, "latex": prose_latex}
_BOOKTABS = "% \\usepackage{booktabs}\n"


def render_tables(views: Sequence[TableView], fmt: str, look: Look | None = None) -> str:
    """Tables one after another; JSON is a list of them, CSV one sheet with a ``table`` column.

    The same tables and the same ``look`` give the same text everywhere.

    Raises UsageError for an unknown format.
    """
    check_format(fmt)
    look = look or Look()
    if fmt == "latex":
        return _BOOKTABS + "\n\n".join(paper_latex(view, look) for view in views)
    if fmt == "json":
        return _json([_table_data(view) for view in views])
    if fmt == "csv":
        return _tables_csv(views)
    if fmt == "text":
        return "\n\n".join(_text(view, look) for view in views)
    tables = [_text_table(replace(view, footnotes=tuple(chosen_notes(view, look.notes or "all")))) for view in views]
    if fmt == "html":
        names = ", ".join(dict.fromkeys(view.id for view in views))
        return html_document(f"DR Loss: {names} at profile {views[0].profile if views else ''}", tables)
    return "\n\n".join(markdown(table) for table in tables)


def table_fragment(view: TableView) -> str:
    """A table as a part of somebody's page: style, table, notes."""
    return html_fragment(_text_table(view))


def _text(view: TableView, look: Look) -> str:
    """For a terminal as wide as it is; for a file or a pipe always the same."""
    if look.terminal is not None:
        return terminal_table(view, look.terminal, look.notes or "short")
    shown = replace(view, footnotes=tuple(chosen_notes(view, look.notes or "all")))
    return table_text(shown, explained=look.notes != "none")


def render_check(view: CheckView, fmt: str, look: Look | None = None) -> str:
    """Verdicts on cells and claims; CSV has the claims only, one line per contrast (cells: the CSV of the tables)."""
    check_format(fmt)
    if fmt == "json":
        return _json(_check_data(view))
    if fmt == "csv":
        return _claims_csv(view)
    if fmt == "text":
        terminal = (look or Look()).terminal
        return check_text(view) if terminal is None else check_text(view, max(20, min(terminal, WIDTH)))
    tables = []
    for verdicts, own in ((view.paper, False), (view.own, True)):
        if verdicts is not None:
            tables += [_cells_table(view, verdicts, own=own)] if view.compared and (verdicts.cells or not own) else []
            tables.append(_claims_table(view, verdicts, own=own))
    if tables:
        tables[-1] = replace(tables[-1], notes=(*tables[-1].notes, *view.notes))
    if fmt == "html":
        return html_document(f"DR Loss: verdicts on {view.target} at profile {view.profile}", tables)
    return "\n\n".join(_MARKUP[fmt](table) for table in tables)


def check_format(fmt: str) -> None:
    """Raises UsageError for an unknown format, before any work is done for it."""
    if fmt not in FORMATS:
        raise UsageError(
            f"Unknown format {fmt!r}. Known: {', '.join(FORMATS)}. Run 'harness table --help'."
            f"{did_you_mean(fmt, FORMATS)}"
        )


def _json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _text_table(view: TableView) -> TextTable:
    spans = [("", len(view.columns) + 1), ("ours", len(METRICS)), ("paper", len(METRICS))]
    headings = [*view.columns, "n", *METRICS, *METRICS]
    if view.compared:
        spans.append(("AP", 2))
        headings += ["diff", "verdict"]
    groups = [row.group for row in view.rows]
    sections = tuple(
        (i, f"{group} detectors") for i, group in enumerate(groups) if group and (i == 0 or groups[i - 1] != group)
    )
    rows = [_table_line(row, view.compared) for row in view.rows]
    first = len(view.columns) + 1  # of ours: where a row without numbers says why
    verdicts = (first, len(headings) - 1)
    return TextTable(title_text(view), headings, rows, len(view.columns), view.footnotes, spans, sections, verdicts)


def _table_line(row: RowView, compared: bool) -> list[str]:
    blank = [""] * (len(METRICS) - 1)
    ours = [mean_text(row.ours.get(metric)).strip() for metric in METRICS] if row.ours else [_status(row), *blank]
    shown = "{:.1f}" if compared else "({:.1f})"
    paper = [shown.format(row.published[metric]) if metric in row.published else "" for metric in METRICS]
    n = "" if row.cited else n_text(row)
    line = [*row.label, n, *ours, *paper]
    if compared:
        verdict = row.verdicts.get("AP")
        line += [difference_text(verdict), verdict_text(verdict) if verdict else ""]
    return line


def _status(row: RowView) -> str:
    return "; ".join(filter(None, [status_text(row), so_far_text(row)]))


def _table_data(view: TableView) -> dict[str, Any]:
    return {
        "id": view.id,
        "title": view.title,
        "split": view.split,
        "profile": view.profile,
        "scale": view.scale,
        "compared_with_paper": view.compared,
        "rows": [_row_data(view, row) for row in view.rows],
        "footnotes": list(view.footnotes),
    }


def _row_data(view: TableView, row: RowView) -> dict[str, Any]:
    return {
        "ref": row.ref,
        "label": dict(zip(view.columns, row.label, strict=True)),
        "group": row.group,
        "status": row.status,
        "n": len(row.seeds),
        "seeds": list(row.seeds),
        "ours": {metric: asdict(mean) for metric, mean in row.ours.items()},
        "published": dict(row.published),
        "cited": row.cited,
        "verdicts": {metric: asdict(verdict) for metric, verdict in row.verdicts.items()},
        "state": row.state,
        "also": list(row.also),
        "in_flight": [{"seed": run.seed, "state": run.kind, "progress": run.progress} for run in row.in_flight],
        "so_far": asdict(row.so_far) if row.so_far else None,
    }


def _tables_csv(views: Sequence[TableView]) -> str:
    """Tables differ in their label columns, so that the label is one cell here."""
    lines = []
    for view in views:
        for row, line in zip(view.rows, view.lines(), strict=True):
            rest = {key: value for key, value in line.items() if key not in ("ref", *view.columns)}
            label = " / ".join(row.label)
            so_far = {"AP so far": row.so_far and row.so_far.ap, "iteration": row.so_far and row.so_far.iteration}
            shared = {
                "state": row.state,
                "progress": status_text(row) if row.in_flight else "",
                "also": " ".join(row.also),
            }
            head = {"table": view.id, "profile": view.profile, "ref": row.ref, "label": label}
            lines.append(head | rest | shared | so_far)
    return csv_text(lines)


def _cells_table(view: CheckView, verdicts: Verdicts, *, own: bool) -> TextTable:
    rows = [[row.ref, str(len(row.seeds)), *(_cell(row, metric) for metric in METRICS)] for row in verdicts.cells]
    caption = f"Verdicts on {'your own' if own else 'the'} cells of {view.target} (profile {view.profile})"
    columns = tuple(range(2, 2 + len(METRICS)))
    return TextTable(caption, ["row", "n", *METRICS], rows, 1, verdicts=columns)


def _cell(row: RowView, metric: str) -> str:
    return verdict_text(row.verdicts[metric]) if metric in row.verdicts else row.status


def _claims_table(view: CheckView, verdicts: Verdicts, *, own: bool) -> TextTable:
    rows = [
        [
            f"{verdict.outcome}{' (provisional)' if verdict.provisional else ''}",
            f"{verdict.claim.text} {verdict.claim.where}.",
            "\n".join(measured_text(pair, verdict.claim.metric) for pair in verdict.measured) or "-",
            "" if verdict.claim.published is None else f"{verdict.claim.published}",
            explanation_text(verdict, verdicts.family_size),
        ]
        for verdict in verdicts.claims
    ]
    whose = "Your own" if own else "The paper's"
    caption = f"{whose} claims about {view.target} (profile {view.profile}: {view.scale})"
    headings = ["verdict", "claim", "measured", "paper", "why"]
    return TextTable(caption, headings, rows, len(headings), verdicts.notes, verdicts=(0,))


def _check_data(view: CheckView) -> dict[str, Any]:
    """The paper's verdicts at the top level; the user's own, of the same form, under ``own``."""
    empty = Verdicts((), (), 0)
    return {
        "target": view.target,
        "profile": view.profile,
        "scale": view.scale,
        "compared_with_paper": view.compared,
        "failed": view.failed,
        "audit": view.audit or None,
        **_verdicts_data(view.paper or empty),
        "own": _verdicts_data(view.own) if view.own is not None else None,
        "notes": list(view.notes),
        "unknown": view.unknown,
    }


def _verdicts_data(verdicts: Verdicts) -> dict[str, Any]:
    return {
        "family_size": verdicts.family_size,
        "cells": [
            {"ref": row.ref, "status": row.status, "published": dict(row.published)}
            | {"verdicts": {metric: asdict(verdict) for metric, verdict in row.verdicts.items()}}
            for row in verdicts.cells
        ],
        "claims": [_claim_data(verdict) for verdict in verdicts.claims],
        "notes": list(verdicts.notes),
    }


def _claim_data(verdict: ClaimVerdict) -> dict[str, Any]:
    return {
        "id": verdict.claim.id,
        "text": verdict.claim.text,
        "where": verdict.claim.where,
        "kind": verdict.claim.kind,
        "metric": verdict.claim.metric,
        "published": verdict.claim.published,
        "threshold": verdict.claim.threshold,
        "margin": verdict.claim.margin,
        "low": verdict.claim.low,
        "high": verdict.claim.high,
        "outcome": verdict.outcome,
        "provisional": verdict.provisional,
        "p_value": verdict.p_value,
        "seeds_needed": verdict.seeds,
        "reason": verdict.reason,
        "measured": [asdict(pair) for pair in verdict.measured],
    }


def _claims_csv(view: CheckView) -> str:
    """The paper's claims, then the user's own, which have a column ``own`` that says so."""
    lines = []
    papers = [(verdict, False) for verdict in (view.paper.claims if view.paper else ())]
    own = [(verdict, True) for verdict in (view.own.claims if view.own else ())]
    for verdict, is_own in [*papers, *own]:
        claim = _claim_data(verdict)
        head = {key: value for key, value in claim.items() if key != "measured"}
        for pair in claim["measured"] or [{}]:
            estimate = pair.pop("estimate", None) or {}
            numbers = {"standard_error": estimate.get("standard_error"), "df": estimate.get("df")}
            lines.append(head | pair | numbers | ({"own": True} if is_own else {}))
    return csv_text(lines)
