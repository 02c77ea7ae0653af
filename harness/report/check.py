"""Everything that ``harness check`` says of a target: verdicts on cells (at the paper's scale) and on claims."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from harness.registry.claims import Claim
from harness.registry.declarations import Profile, Table
from harness.report.tables import RowView, build_table
from harness.verdicts.evidence import RowRuns
from harness.verdicts.judge import ClaimVerdict, judge_claims


@dataclass(frozen=True)
class CheckView:
    """``cells``: rows with a published number that were run; empty where numbers are not compared (``compared``).

    ``claims``: those about a row of the target. ``family_size``: claims that the profile can decide, which is what
    Holm's correction counts.
    """

    target: str
    profile: str
    scale: str
    compared: bool
    cells: tuple[RowView, ...]
    claims: tuple[ClaimVerdict, ...]
    family_size: int

    @property
    def failed(self) -> bool:
        """Whether a cell is not reproduced or a claim contradicted."""
        cells = (verdict.outcome for row in self.cells for verdict in row.verdicts.values())
        return "not reproduced" in cells or any(claim.outcome == "contradicted" for claim in self.claims)


def build_check(
    target: str,
    refs: Collection[str],
    tables: Sequence[Table],
    claims: Sequence[Claim],
    profile: Profile,
    *,
    runs: Mapping[str, RowRuns],
    server: Mapping[str, RowRuns] | None = None,
) -> CheckView:
    """Judge the cells of ``refs`` and the claims that name one of them.

    ``claims``: all of the registry's. ``runs``: every finished row by ref, of every table. ``server``: test-dev runs
    that have the evaluation server's answer.
    """
    views = [
        build_table(table, profile, {**runs, **(server or {})} if table.split == "test-dev" else runs, refs)
        for table in tables
    ]
    verdicts = judge_claims(claims, runs, profile.name, profile.assumed_sd)
    return CheckView(
        target=target,
        profile=profile.name,
        scale=profile.title,
        compared=profile.compare_with_paper,
        cells=tuple(row for view in views for row in view.rows if row.published and row.status != "cited")
        if profile.compare_with_paper
        else (),
        claims=tuple(verdict for verdict in verdicts if not set(refs).isdisjoint(verdict.claim.refs())),
        family_size=sum(profile.name in claim.decidable_in for claim in claims),
    )
