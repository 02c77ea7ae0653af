"""What ``harness check`` says of a target: verdicts on cells (at the paper's scale) and on claims."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from harness.registry.claims import Claim
from harness.registry.declarations import Profile, Table
from harness.report.noise import looks_notes, share_notes
from harness.report.tables import RowView, build_table
from harness.verdicts.judge import ClaimVerdict, judge_claims
from harness.verdicts.runs import ProfileRuns, RowRuns


@dataclass(frozen=True)
class Verdicts:
    """Verdicts on a target: those on the paper, or those on the user's own rows and claims.

    ``cells``: rows with a published number that were run; empty where numbers are not compared. ``claims``: those about
    a row of the target. ``family_size``: claims that the profile can decide, which is what Holm's correction counts.
    ``notes``: what the reader of the claims must know of seeds.
    """

    cells: tuple[RowView, ...]
    claims: tuple[ClaimVerdict, ...]
    family_size: int
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether a cell is not reproduced or a claim contradicted, by more than a provisional verdict."""
        cells = (verdict for row in self.cells for verdict in row.verdicts.values())
        return any(cell.outcome == "not reproduced" and not cell.provisional for cell in cells) or any(
            claim.outcome == "contradicted" and not claim.provisional for claim in self.claims
        )


@dataclass(frozen=True)
class CheckView:
    """What is said of a target: ``paper`` of the paper, ``own`` of the user's own rows and claims.

    Either is None where the target has nothing of it. ``compared``: whether the profile's numbers may stand against
    published ones. ``notes``: on the records behind the verdicts. ``unknown``: what the older of them do not say.
    ``audit``: one line on what ``harness audit`` finds; empty where nobody asked.
    """

    target: str
    profile: str
    scale: str
    compared: bool
    paper: Verdicts | None
    own: Verdicts | None = None
    notes: tuple[str, ...] = ()
    unknown: str = ""
    audit: str = ""

    @property
    def failed(self) -> bool:
        """Whether anything shown is not reproduced or contradicted; what is provisional does not count."""
        return any(part.failed for part in (self.paper, self.own) if part is not None)


def build_check(
    target: str,
    refs: Collection[str],
    tables: Sequence[Table],
    claims: Sequence[Claim],
    profile: Profile,
    *,
    runs: Mapping[str, RowRuns],
    server: Mapping[str, RowRuns] | None = None,
    own_rows: Collection[str] = (),
    own_claims: Sequence[Claim] = (),
    not_compared: Collection[str] = (),
    notes: tuple[str, ...] = (),
    unknown: str = "",
    looks: Sequence[int] = (),
) -> CheckView:
    """Judge the cells of ``refs`` and the claims that name one of them.

    ``claims``: all of the paper's, ``own_claims``: all of the user's; each is corrected for its own number alone, and
    the paper's are judged without ``own_rows``. ``runs``: every finished row by ref, of every table. ``server``:
    test-dev runs that have the evaluation server's answer. target: one or several; with ``all`` every claim is shown.
    ``not_compared``: rows that no claim may be judged by, because their runs had other inputs than those of the others.
    ``looks``: seeds per row at which it was decided beforehand to look.
    """
    every = ProfileRuns(runs, profile.assumed_sd).without(not_compared)
    cells = _cells(refs, tables, profile, runs=runs, server=server or {}, own_rows=own_rows)
    asked = set(refs)

    def verdicts(family: Sequence[Claim], at_profile: ProfileRuns, *, own: bool) -> Verdicts:
        shown = asked.union(*(claim.refs() for claim in family)) if "all" in target.split() else asked
        size = sum(profile.name in claim.decidable_in for claim in family)
        judged = [
            verdict
            for verdict in judge_claims(family, at_profile, profile.name, looks)
            if not shown.isdisjoint(verdict.claim.refs())
        ]
        named = dict.fromkeys(ref for verdict in judged for ref in verdict.claim.refs())
        return Verdicts(
            cells=tuple(row for row in cells if (row.ref in own_rows) == own),
            claims=tuple(judged),
            family_size=size,
            notes=(*share_notes(named, at_profile), *looks_notes(judged, size, looks)),
        )

    own = verdicts(own_claims, every, own=True)
    all_own = bool(asked) and asked <= set(own_rows)
    return CheckView(
        target=target,
        profile=profile.name,
        scale=profile.title,
        compared=profile.compare_with_paper,
        paper=None if all_own else verdicts(claims, every.without(own_rows), own=False),
        own=own if own.claims or not asked.isdisjoint(own_rows) else None,
        notes=notes,
        unknown=unknown,
    )


def _cells(
    refs: Collection[str],
    tables: Sequence[Table],
    profile: Profile,
    *,
    runs: Mapping[str, RowRuns],
    server: Mapping[str, RowRuns],
    own_rows: Collection[str],
) -> list[RowView]:
    """The rows of ``refs`` that have published numbers; none where numbers are not compared."""
    if not profile.compare_with_paper:
        return []
    views = [
        build_table(table, profile, {**runs, **server} if table.split == "test-dev" else runs, refs, own=own_rows)
        for table in tables
    ]
    return [row for view in views for row in view.rows if row.published and row.status != "cited"]
