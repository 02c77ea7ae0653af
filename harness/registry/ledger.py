"""Where the sources of a row's settings differ (ledger.yaml), and what the row uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.registry.declarations import LedgerEntry, Profile
from harness.registry.load import Registry
from harness.registry.resolution import Resolution
from harness.registry.resolve import FROM_SCRATCH, resolve

SILENT = "silent"
SHOWN_ROWS = 3


@dataclass(frozen=True)
class Deviation:
    """One entry of the ledger beside the value that a row uses."""

    entry: LedgerEntry
    used: Any

    @property
    def stated(self) -> dict[str, Any]:
        """What each source says, by its name, silence included."""
        entry = self.entry
        return {
            "paper": entry.paper,
            "released": entry.released,
            "base": entry.base,
            **entry.others,
        }

    @property
    def differs(self) -> bool:
        """Whether the sources that speak, and the row, are not all equal."""
        spoken = [value for value in self.stated.values() if value != SILENT]
        return any(value != self.used for value in spoken)


def deviations(registry: Registry, ref: str, resolution: Resolution) -> list[Deviation]:
    """What applies to one row, or to a recipe by its name, and differs there, in the ledger's order.

    A value that the profile's scale sets is no deviation: the profile's title says that it is another scale.
    """
    recipe = ref if ref in registry.recipes else registry.row(ref)[1].recipe
    found = []
    for entry in registry.ledger.fields:
        applies = (entry.recipes is None or recipe in entry.recipes) and (entry.rows is None or ref in entry.rows)
        used = resolution.get(entry.path)
        scaled = resolution.origins.get(entry.path, "").startswith("profile ")
        if applies and used is not None and not scaled:
            deviation = Deviation(entry, used)
            if deviation.differs:
                found.append(deviation)
    return found


def as_data(found: Sequence[Deviation]) -> list[dict[str, Any]]:
    """For JSON."""
    return [
        {
            "path": item.entry.path,
            "used": item.used,
            **item.stated,
            "why": item.entry.why,
            "ablations": list(item.entry.ablations),
        }
        for item in found
    ]


def table_notes(registry: Registry, profile: Profile, refs: Sequence[str]) -> tuple[str, ...]:
    """A footnote for each setting on which the sources differ, with what the rows of ``refs`` use."""
    by_entry: dict[int, tuple[LedgerEntry, dict[str, list[str]]]] = {}
    for ref in refs:
        _, row = registry.row(ref)
        for item in deviations(registry, ref, resolve(registry, ref, profile)):
            if profile.without_weights == "from_scratch" and item.entry.path in FROM_SCRATCH:
                continue  # trained with or without weights: the record says which
            _, used = by_entry.setdefault(id(item.entry), (item.entry, {}))
            used.setdefault(plain(item.used), []).append(" ".join(row.cells))
    notes = [_note(entry, used) for entry, used in by_entry.values()]
    if notes:
        notes.insert(0, "Where paper, released configuration, base codebase and we differ (why: harness explain ROW):")
    return tuple(notes)


def _note(entry: LedgerEntry, used: dict[str, list[str]]) -> str:
    """``PATH: what most rows use (VALUE in ROWS). Paper: ..; released: ..; base: ... Ablation: ...``"""
    common, *rare = sorted(used, key=lambda value: -len(used[value]))
    chosen = common + "".join(f" ({value} in {_rows(used[value])})" for value in rare)
    stated = Deviation(entry, None).stated
    says = "; ".join(f"{name}: {plain(value)}" for name, value in stated.items())
    return f"{entry.path}: {chosen}. {says[0].upper()}{says[1:]}. Ablation: {', '.join(entry.ablations)}."


def _rows(names: list[str]) -> str:
    return "; ".join(names) if len(names) <= SHOWN_ROWS else f"{len(names)} rows"


def plain(value: Any) -> str:
    """A setting's value as a person writes it."""
    if isinstance(value, list):
        items = [plain(item) for item in value]
        return f"[{', '.join(items if len(items) <= 12 else [*items[:3], '...', items[-1]])}]"
    if isinstance(value, bool):  # tabulate reads the text "False" as a true value
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
