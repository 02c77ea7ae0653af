"""Where the records are, when the profile that was asked for has none of them."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Final

from detector.errors import HarnessError
from harness.planning.selection import Selection

MOST_NAMED: Final = 3  # profiles


def records_elsewhere(selection: Selection) -> str:
    """``No record at profile paper, but 8 at tiny: add -p tiny.`` Empty where the profile has any of the target."""
    if selection.departures or _count(selection):
        return ""
    profiles = Counter(record.profile for record in selection.store.records)
    found = []
    for name in sorted(profiles, key=lambda name: (-profiles[name], name)):
        if name == selection.profile.name or name not in selection.registry.profiles:
            continue
        with suppress(HarnessError):  # a row that the profile does not have, records of several data sets
            other = Selection(selection.targets, name, [], None)
            other.store = selection.store
            if count := _count(other):
                found.append((count, name))
    if not found:
        return ""
    shown = ", ".join(f"{count} at {name}" for count, name in found[:MOST_NAMED])
    return f"No record at profile {selection.profile.name}, but {shown}: add -p {found[0][1]}."


def _count(selection: Selection) -> int:
    """Records that fill the target's rows, each once."""
    records = selection.row_records()
    return len({record.eval_id for ref in selection.refs for record in records.get(ref, ())})
