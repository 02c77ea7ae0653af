"""Tables and verdicts as lines of plain values: one per row of a table, one per contrast of a claim."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from harness.report.check import CheckView
from harness.report.tables import TableView
from harness.verdicts.judge import ClaimVerdict
from harness.verdicts.measure import Measured

Line = dict[str, Any]


def cell_lines(views: Sequence[TableView]) -> list[Line]:
    """One line per row of the tables, each row once: its numbers beside the paper's."""
    found = (line for view in views for line in _table_lines(view))
    return list({line["row"]: line for line in found}.values())


def _table_lines(view: TableView) -> Iterator[Line]:
    for row, line in zip(view.rows, view.lines(), strict=True):
        values = {key.replace(" ", "_"): value for key, value in line.items() if key not in ("ref", *view.columns)}
        head = {"row": row.ref, "label": " / ".join(row.label), "status": row.status, "n": len(row.seeds)}
        yield head | {"split": view.split} | values


def claim_lines(view: CheckView) -> list[Line]:
    """One line per contrast of each claim: the paper's claims, then the user's own."""
    parts = [(part, own) for part, own in ((view.paper, False), (view.own, True)) if part is not None]
    return [line for part, own in parts for verdict in part.claims for line in _claim_lines(verdict, own=own)]


def _claim_lines(verdict: ClaimVerdict, *, own: bool) -> Iterator[Line]:
    claim = verdict.claim
    measured = {(pair.a, pair.b): pair for pair in verdict.measured}
    named = {"id": claim.id, "text": claim.text, "where": claim.where, "own": own}
    named |= {"metric": claim.metric, "kind": claim.kind}
    judged = {
        "p": verdict.p_value,
        "outcome": verdict.outcome,
        "provisional": verdict.provisional,
        "reason": verdict.reason,
        "published": claim.published,
        "seeds_needed": verdict.seeds,
    }
    for a, b in [(claim.row or "", None)] if claim.row else [(pair.a, pair.b) for pair in claim.contrasts]:
        yield {**named, "a": a, "b": b, **_numbers(measured.get((a, b))), **judged}


def _numbers(pair: Measured | None) -> Line:
    if pair is None:
        blank: Line = dict.fromkeys(("mean_a", "mean_b", "quantity", "difference", "low", "high"))
        return {"n_a": 0, "n_b": 0} | blank
    reach = pair.estimate.half_width() if pair.estimate is not None else None
    return {
        "n_a": pair.n_a,
        "n_b": pair.n_b,
        "mean_a": pair.mean_a,
        "mean_b": pair.mean_b,
        "quantity": pair.quantity,
        "difference": pair.value,
        "low": None if reach is None else pair.value - reach,
        "high": None if reach is None else pair.value + reach,
    }
