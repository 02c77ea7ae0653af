"""An audit for a terminal of 80 columns, or of fewer."""

from __future__ import annotations

import textwrap

from harness.audit.audit import CHECKS, AuditView
from harness.audit.evidence import Finding
from harness.console.layout import text_width
from harness.console.legend import legend

INDENT = " " * 4
SHOWN = 6  # rows or files of one finding; JSON has all


def audit_text(view: AuditView, width: int | None = None, *, elsewhere: str = "") -> str:
    """What was found, each with its meaning and what to do; then what could not be checked.

    elsewhere: which other profiles have records, where this one has none.
    """
    within = text_width(width)
    lines = _wrap(
        f"Audit of {view.target}, profile {view.profile}: {len(CHECKS)} checks of {view.records} records in "
        f"{view.rows} rows. Findings: {len(view.findings)}.",
        within,
        "",
    )
    for finding in view.findings:
        lines += ["", *_finding(finding, within)]
    if not view.records:
        lines += ["", *(_wrap(elsewhere, within, "  ") if elsewhere else ["No record of this profile yet."])]
        lines.append(f"To make some: harness run {view.target} --profile {view.profile}")
    elif view.unchecked:
        lines += ["", "Could not be checked:"]
        lines += [line for item in view.unchecked for line in _wrap(item, within, "  ", "- ")]
    if words := legend("\n".join(lines)):
        lines += ["", *_wrap(words, within, "  ")]
    return "\n".join(lines)


def _finding(finding: Finding, width: int) -> list[str]:
    more = len(finding.where) - SHOWN
    where = [*finding.where[:SHOWN], *([f"and {more} more"] if more > 0 else [])]
    return [
        finding.check.upper(),
        *_wrap("; ".join(where), width, INDENT, INDENT),
        *_wrap(f"Found: {finding.found}", width, INDENT, INDENT),
        *_wrap(f"Means: {finding.means}", width, INDENT, INDENT),
        *_wrap(f"Do: {finding.do}", width, INDENT, INDENT),
    ]


def _wrap(text: str, width: int, indent: str, first: str = "") -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )
