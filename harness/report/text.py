"""Tables and verdicts as text of 120 columns: the paper's number below ours, digit under digit."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest

from harness.console.legend import legend
from harness.registry.claims import Claim
from harness.registry.declarations import METRICS
from harness.report.check import CheckView, Verdicts
from harness.report.progress.in_flight import so_far_text, status_text
from harness.report.tables import Mean, RowView, TableView
from harness.verdicts.judge import CellVerdict, ClaimOutcome, ClaimVerdict
from harness.verdicts.measure import Measured

WIDTH = 120
LABELS_WIDTH = 44
CLAIM_OUTCOMES: tuple[ClaimOutcome, ...] = ("supported", "contradicted", "undecided", "not decidable here")


def table_legend(view: TableView, text: str) -> str:
    """What the signs and abbreviations in the table's text mean, as far as its notes do not say it."""
    after = "deviation between seeds; after a difference, half of its 95% interval"
    if any(note.startswith("±: ") for note in view.footnotes):
        after = "after a difference, half of its 95% interval" if any(row.verdicts for row in view.rows) else ""
    return legend(text, {"n": "", "±": after, "-": "the test images have no object of that size"})


def table_text(view: TableView, *, explained: bool = True) -> str:
    """One block per row: ours, the paper's and, where compared, their difference with the verdict on AP.

    explained: with the meaning of its signs and abbreviations at the end.
    """
    head = [*view.columns, "", "n", *METRICS]
    label_width = LABELS_WIDTH // len(view.columns)
    blocks = [_row_lines(row, view.compared, label_width) for row in view.rows]
    cells = [line for block in blocks for line in block if len(line) == len(head)]
    widths = [max(len(line[i]) for line in [head, *cells]) for i in range(len(head))]
    body: list[str] = []
    group = None
    for row, block in zip(view.rows, blocks, strict=True):
        if row.group != group:
            group = row.group
            body.append(f"{group} detectors")
        body += [_join(line, widths) for line in block]
    title = title_text(view)
    rule = "  ".join("-" * width for width in widths)
    listed = [_join(head, widths), rule, *body, rule]
    notes = [*view.footnotes, *([table_legend(view, "\n".join(listed))] if explained else [])]
    return "\n".join([*_wrap(title, "  "), "", *listed, *(line for note in notes for line in _wrap(note, "  ", "- "))])


def _row_lines(row: RowView, compared: bool, label_width: int) -> list[list[str]]:
    """Cells of each line; a line with fewer cells than columns ends in free text."""
    lines: list[list[str]] = []
    if row.status != "cited":
        n = n_text(row)
        ours = [mean_text(row.ours.get(metric)) for metric in METRICS]
        lines.append(["ours", n, *(ours if row.ours else [status_text(row), *[""] * (len(METRICS) - 1)])])
        if text := so_far_text(row):
            lines.append(["", "", text])
    if row.published:
        shown = "{:4.1f}" if compared else "({:.1f})"
        source = "cited" if row.cited else "paper"
        lines.append([source, "", *(shown.format(row.published[metric]) for metric in METRICS)])
    if row.verdicts:
        differences = (difference_text(row.verdicts.get(metric)) for metric in METRICS)
        lines.append(["diff", "", *differences])
        lines.append(["", "", f"AP {verdict_text(row.verdicts['AP'])}"])
    labels = [textwrap.wrap(cell, label_width, break_on_hyphens=False, break_long_words=False) for cell in row.label]
    stacked = zip_longest(*labels, fillvalue="")
    empty = [""] * (2 + len(METRICS))
    return [
        [*(label or [""] * len(labels)), *(line or empty)]
        for label, line in zip_longest(map(list, stacked), lines, fillvalue=None)
    ]


def _join(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=False)).rstrip()


def _wrap(text: str, indent: str, bullet: str = "", width: int = WIDTH) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=bullet,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=width == WIDTH,
    )


def title_text(view: TableView) -> str:
    """``Table 2. What it shows``; with the split where ours and the paper's numbers share it."""
    name = view.id.capitalize().replace("Table", "Table ")
    return f"{name}. {view.title}" + (f" ({view.split})" if view.compared else "")


def n_text(row: RowView) -> str:
    """How many seeds; of how many, where some are missing."""
    return f"{len(row.seeds)}/{row.wanted}" if row.ours and len(row.seeds) < row.wanted else str(len(row.seeds))


def mean_text(value: Mean | None) -> str:
    """A mean with one decimal, and the deviation where there is one."""
    if value is None:
        return "-"
    return f"{value.mean:4.1f}" + (f" ±{value.sd:.1f}" if value.sd is not None else "")


def difference_text(verdict: CellVerdict | None) -> str:
    """Signed difference with half of its 95% interval."""
    if verdict is None or verdict.difference is None:
        return ""
    return f"{verdict.difference:+z.1f}" + (f" ±{verdict.half_width:.1f}" if verdict.half_width is not None else "")


def verdict_text(verdict: CellVerdict) -> str:
    """The verdict, marked where it rests on an assumed deviation."""
    return verdict.outcome + (" (provisional)" if verdict.provisional else "")


def measured_text(measured: Measured, metric: str) -> str:
    """``table2/focal 31.5 (n 3)``, the other row, and the tested quantity with its 95% interval."""
    digits = 1 if metric in METRICS else 3
    parts = [f"{measured.a} {measured.mean_a:.{digits}f} (n {measured.n_a})"]
    if measured.b is not None and measured.mean_b is not None:
        parts.append(f"{measured.b} {measured.mean_b:.{digits}f} (n {measured.n_b})")
    interval = f" ±{measured.estimate.half_width():.{digits}f}" if measured.estimate else ""
    sign = "+z" if measured.b is not None else ""
    apart = measured.b is not None and measured.quantity == "a - b" and measured.design == "independent"
    design = " (different seeds or backbones)" if apart and interval else ""
    return f"{', '.join(parts)}: {measured.quantity} = {measured.value:{sign}.{digits}f}{interval}{design}"


def explanation_text(verdict: ClaimVerdict, family_size: int) -> str:
    """Why the verdict is what it is: the p-value, the reason, the seeds that it would take."""
    parts = [verdict.reason] if verdict.reason else []
    if verdict.p_value is not None:
        p_value = f"= {verdict.p_value:.2g}" if verdict.p_value >= 1e-4 else "< 0.0001"
        parts.append(f"p {p_value} (Holm over {family_size} claims)")
    if verdict.seeds is not None and verdict.outcome in ("undecided", "not decidable here"):
        margin = verdict.claim.margin
        shown = f"to lie within ±{margin}" if margin is not None else "not to be chance"
        parts.append(
            f"at this deviation a difference like the paper's takes {verdict.seeds} seeds per row to be shown {shown} "
            "(80% power)"
        )
    return "; ".join(part.rstrip(".") for part in parts) + "."


def check_text(view: CheckView, width: int = WIDTH) -> str:
    """Of the paper, then of the user's own: cells (or why there are none), then each claim with what was measured."""
    lines = _wrap(f"Verdicts on {view.target}, profile {view.profile}: {view.scale}", "  ", width=width)
    if view.audit:
        lines += ["", *_wrap(view.audit, "  ", width=width)]
    if view.paper is not None:
        lines += [
            "",
            *_cell_lines(view, view.paper, width),
            "",
            *_claim_lines(view.paper, f"{len(view.paper.claims)} claims of the paper", width),
        ]
    if notes := [*view.notes, *([view.unknown] if view.unknown else [])]:
        lines += ["", *(line for note in notes for line in _wrap(note, "  ", "- ", width))]
    if view.own is not None:
        lines += ["", "Your own; no verdict on the paper counts them:"]
        if view.own.cells or view.paper is None:
            lines += ["", *_cell_lines(view, view.own, width)]
        lines += ["", *_claim_lines(view.own, f"Claims of your own, {len(view.own.claims)} in all", width)]
    if words := legend("\n".join(lines), _CHECK_WORDS):
        lines += ["", *_wrap(words, "  ", width=width)]
    return "\n".join(lines)


_CHECK_WORDS = {
    "±": "half of the 95% interval",
    "a - b": "the first row's mean minus the second's",
    "Holm": "corrected for so many claims",
    "80% power": "found four times out of five, if the paper's difference is the truth",
    "-": "no verdict",
}


def _claim_lines(verdicts: Verdicts, heading: str, width: int) -> list[str]:
    counts = Counter(verdict.outcome for verdict in verdicts.claims)
    summary = ", ".join(f"{counts[outcome]} {outcome}" for outcome in CLAIM_OUTCOMES)
    lines = _wrap(f"{heading}: {summary}.", "  ", width=width)
    indent = " " * 4
    for outcome in CLAIM_OUTCOMES:
        for verdict in (verdict for verdict in verdicts.claims if verdict.outcome == outcome):
            claim = verdict.claim
            published = f", paper: {claim.published}" if claim.published is not None else ""
            provisional = " (provisional)" if verdict.provisional else ""
            head = f"{outcome.upper()}{provisional}  {claim.id}  ({claim.metric}{published}{_bounds(claim)})"
            lines += ["", *([head] if len(head) <= width else _wrap(head, indent, width=width))]
            lines += _wrap(f"{claim.text} {claim.where}.", indent, indent, width)
            for pair in verdict.measured:
                lines += _wrap(measured_text(pair, claim.metric), f"{indent}  ", indent, width)
            lines += _wrap(explanation_text(verdict, verdicts.family_size), indent, indent, width)
    if verdicts.notes:
        lines += ["", *(line for note in verdicts.notes for line in _wrap(note, "  ", "- ", width))]
    return lines


def _bounds(claim: Claim) -> str:
    """What the quantity must be above, below or between, where the claim says it."""
    if claim.low is not None and claim.high is not None:
        return f", between {claim.low:g} and {claim.high:g}"
    return f", {claim.kind} {claim.threshold:g}" if claim.threshold is not None else ""


def _cell_lines(view: CheckView, verdicts: Verdicts, width: int) -> list[str]:
    if not view.compared:
        return _wrap(
            f"Cells: the numbers of profile {view.profile} are at another scale than the paper's, so none is compared.",
            "",
            width=width,
        )
    run = [row for row in verdicts.cells if row.verdicts]
    waiting = Counter(row.status for row in verdicts.cells if not row.verdicts)
    rest = "".join(f", {count} {status}" for status, count in waiting.items())
    measured = f"Cells: {len(run)} of {len(verdicts.cells)} rows measured{rest}."
    if not run:
        return _wrap(measured, "  ", width=width)
    lines = _wrap(f"{measured} *: provisional, the deviation is assumed.", "  ", width=width)
    table = _cell_table(run, dict.fromkeys(_SIGNS, ""))
    if max(map(len, table)) > width:
        table = _cell_table(run, _SIGNS)
        lines += _wrap("; ".join(f"{sign}: {outcome}" for outcome, sign in _SIGNS.items()) + ".", "  ", width=width)
    return [*lines, *table]


_SIGNS = {"reproduced": "yes", "consistent": "ok", "inconclusive": "?", "not reproduced": "NO"}


def _cell_table(rows: Sequence[RowView], signs: Mapping[str, str]) -> list[str]:
    """signs: by outcome, what stands for it; "" for the outcome's own words."""
    head = ["row", "n", *METRICS]
    table = [
        [row.ref, str(len(row.seeds)), *(_short(row.verdicts.get(metric), signs) for metric in METRICS)] for row in rows
    ]
    widths = [max(len(line[i]) for line in [head, *table]) for i in range(len(head))]
    return [_join(head, widths), "  ".join("-" * w for w in widths), *(_join(line, widths) for line in table)]


def _short(verdict: CellVerdict | None, signs: Mapping[str, str]) -> str:
    if verdict is None:
        return "-"
    return (signs.get(verdict.outcome) or verdict.outcome) + ("*" if verdict.provisional else "")
