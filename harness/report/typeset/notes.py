"""The notes under a table: all, the short ones, or none."""

from __future__ import annotations

from typing import Final

from harness.report.tables import TableView
from harness.report.typeset.options import Notes

SHORT: Final = 240  # letters


def chosen_notes(view: TableView, notes: Notes) -> list[str]:
    """Short: without the settings on which the sources differ, which are counted, and each cut to some lines."""
    if notes == "none":
        return []
    if notes == "all" or not view.footnotes:
        return list(view.footnotes)
    settings = set(view.settings)
    kept = [_cut(note) for note in view.footnotes if note not in settings]
    if settings:
        kept.append(f"The sources differ on {len(settings) - 1} settings of these rows; --notes all lists them.")
    return kept


def _cut(note: str) -> str:
    if len(note) <= SHORT:
        return note
    return f"{note[: SHORT - 20].rsplit(' ', 1)[0]} ... (--notes all)"
