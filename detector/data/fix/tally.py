"""What was done to a data set, by kind: counts, examples, and the whole list. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from detector.storage.shown import one_line

EXAMPLES = 3  # shown of each kind


@dataclass
class Tally:
    """Findings by kind, in the order in which the kinds were first seen."""

    items: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, item: str) -> None:
        """One more of a kind. item: which file, image or annotation, and its value."""
        self.items.setdefault(kind, []).append(item)

    def __bool__(self) -> bool:
        return bool(self.items)

    def count(self, kind: str) -> int:
        """How many there are of a kind."""
        return len(self.items.get(kind, []))

    def lines(self) -> list[str]:
        """One line per kind: how many, and the first few."""
        found = []
        for kind, items in self.items.items():
            more = ", ..." if len(items) > EXAMPLES else ""
            found.append(one_line(f"{kind}: {len(items):,} ({', '.join(items[:EXAMPLES])}{more})"))
        return found

    def as_json(self) -> list[dict[str, object]]:
        """Every kind with its count and all its items."""
        return [
            {"kind": one_line(kind), "count": len(items), "items": list(map(one_line, items))}
            for kind, items in self.items.items()
        ]
