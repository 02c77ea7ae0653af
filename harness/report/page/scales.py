"""One scale of the page: a selection whose records are read and judged once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from detector.runs.record import Record
from harness.figures.rows.contrasts import judged_claims
from harness.planning.selection import TEST_DEV, Selection, Targets
from harness.planning.unequal import Chosen, choose
from harness.report.check import CheckView
from harness.report.tables import TableView
from harness.report.views import judge, table_views
from harness.store.records import Source
from harness.verdicts.runs import ProfileRuns, RowRuns


class _ReadOnce(Selection):
    """A selection that looks its records up once: every part of the page asks for them."""

    def runs(self, split: str | None = None) -> dict[str, RowRuns]:
        """As ``Selection.runs``."""
        if split not in self._runs:
            self._runs[split] = super().runs(split)
        return self._runs[split]

    def row_records(self, split: str | None = None) -> dict[str, list[Record]]:
        """As ``Selection.row_records``."""
        if split not in self._row_records:
            self._row_records[split] = super().row_records(split)
        return self._row_records[split]

    @cached_property
    def _runs(self) -> dict[str | None, dict[str, RowRuns]]:
        return {}

    @cached_property
    def _row_records(self) -> dict[str | None, dict[str, list[Record]]]:
        return {}


@dataclass(frozen=True)
class Scale:
    """What the page says of one profile is made from this."""

    selection: Selection

    @property
    def name(self) -> str:
        """The profile's name."""
        return self.selection.profile.name

    @property
    def title(self) -> str:
        """The profile's scale in words."""
        return self.selection.profile.title

    @cached_property
    def tables(self) -> list[TableView]:
        """The targets' tables."""
        return table_views(self.selection)

    @cached_property
    def check(self) -> CheckView:
        """Verdicts on the targets' cells and claims."""
        return judge(self.selection)

    @cached_property
    def papers_differences(self) -> dict[tuple[str, str, str | None], float]:
        """By claim and its two rows, the difference that the paper prints."""
        return {
            (item.claim.id, line.a, line.b): line.paper
            for item in judged_claims(self.selection)
            for line in item.lines
            if line.paper is not None and not line.paper_is_least
        }

    @cached_property
    def chosen(self) -> dict[str, Chosen]:
        """By row of the targets, its records that are averaged and those that are not; the server's answers last."""
        found = {}
        for split in (None, TEST_DEV):
            for ref, records in self.selection.row_records(split).items():
                if ref in self.selection.refs and records and (split is None or ref not in found):
                    found[ref] = choose(records)
        return found

    @cached_property
    def records(self) -> list[Record]:
        """Every averaged record of the targets' rows, each once."""
        return list({record.eval_id: record for item in self.chosen.values() for record in item.kept}.values())

    @cached_property
    def runs(self) -> ProfileRuns:
        """The runs of every row, for differences between rows."""
        return ProfileRuns(self.selection.runs(), self.selection.profile.assumed_sd)


def scales(targets: Targets, profiles: Sequence[str], data: Path | None, source: Source | None) -> list[Scale]:
    """One per profile, in the order given, each once. The records are read once for all.

    Raises UsageError for an unknown target or profile.
    """
    found: list[Scale] = []
    for name in dict.fromkeys(profiles):
        selection = _ReadOnce(targets, name, [], data, source=source)
        if found:
            selection.store = found[0].selection.store
        found.append(Scale(selection))
    return found
