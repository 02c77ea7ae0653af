"""The claims that a figure shows: verdicts, and for each contrast its interval and the paper's own difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from harness.figures.figure import Cell
from harness.figures.rows.shown import profile_runs
from harness.planning.selection import Selection
from harness.registry.claims import Claim, Contrast
from harness.registry.declarations import METRICS
from harness.registry.load import Registry
from harness.verdicts.judge import ClaimVerdict, judge_claims
from harness.verdicts.measure import Measured
from harness.verdicts.runs import COLLAPSE_RATIO

COLUMNS: Final = (
    "claim",
    "metric",
    "quantity",
    "a",
    "b",
    "n_a",
    "n_b",
    "value",
    "low",
    "high",
    "paper",
    "paper_is_least",
    "holds_above",
    "holds_below",
    "verdict",
    "provisional",
    "p_value",
    "reason",
)
_AWAY: Final = "not decidable here"


@dataclass(frozen=True)
class Line:
    """One contrast of a claim, or the one row that it speaks of. n_a, n_b: seeds. value: None without runs of both.

    low, high: the ends of its 95% interval, None where the runs give none. paper: the paper's own difference.
    paper_is_least: whether it is only the smallest of the several that the claim is about.
    """

    a: str
    b: str | None
    n_a: int = 0
    n_b: int = 0
    value: float | None = None
    low: float | None = None
    high: float | None = None
    paper: float | None = None
    paper_is_least: bool = False

    def cells(self) -> tuple[Cell, ...]:
        """Its part of ``COLUMNS``."""
        is_least = "yes" if self.paper_is_least else "no"
        return (self.a, self.b, self.n_a, self.n_b, self.value, self.low, self.high, self.paper, is_least)


@dataclass(frozen=True)
class JudgedClaim:
    """A claim with its verdict and its lines. above, below: it holds above and below these; None: no bound there."""

    verdict: ClaimVerdict
    quantity: str
    above: float | None
    below: float | None
    lines: tuple[Line, ...]

    @property
    def claim(self) -> Claim:
        """What is judged."""
        return self.verdict.claim

    @property
    def decidable(self) -> bool:
        """Whether runs of this profile can decide it."""
        return self.verdict.outcome != _AWAY

    def rows(self) -> list[tuple[Cell, ...]]:
        """Its lines of ``COLUMNS``."""
        verdict = self.verdict
        said = (verdict.outcome, "yes" if verdict.provisional else "no", verdict.p_value, verdict.reason)
        of_claim = (self.claim.id, self.claim.metric, self.quantity)
        bounds = (self.above, self.below)
        return [(*of_claim, *line.cells(), *bounds, *said) for line in self.lines]


def judged_claims(selection: Selection) -> list[JudgedClaim]:
    """The paper's claims that name a row of the target (all of them for ``all``), then the user's own."""
    registry, name = selection.registry, selection.profile.name
    found = judge_claims(registry.claims, profile_runs(selection, own=False), name)
    if registry.own_claims:
        found += judge_claims(registry.own_claims, profile_runs(selection, own=True), name)
    asked, everything = set(selection.refs), "all" in selection.targets
    return [_judged(verdict, registry) for verdict in found if everything or not asked.isdisjoint(verdict.claim.refs())]


def _judged(verdict: ClaimVerdict, registry: Registry) -> JudgedClaim:
    claim = verdict.claim
    above, below = _bounds(claim)
    measured = {(item.a, item.b): item for item in verdict.measured}
    pairs: list[tuple[str, str | None]] = [(claim.row, None)] if claim.row else [(p.a, p.b) for p in claim.contrasts]
    lines = tuple(_line(claim, pair, measured.get(pair), registry) for pair in pairs)
    quantity = "a - b / 2" if claim.kind == "collapses" else "a" if claim.row else "a - b"
    return JudgedClaim(verdict, quantity, above, below, lines)


def _bounds(claim: Claim) -> tuple[float | None, float | None]:
    """Above and below which value every line of the claim must be."""
    if claim.kind == "similar" and claim.margin is not None:
        return -claim.margin, claim.margin
    if claim.kind == "between":
        return claim.low, claim.high
    if claim.kind == "above":
        return claim.threshold, None
    if claim.kind == "below":
        return None, claim.threshold
    return (None, 0.0) if claim.kind == "collapses" else (0.0, None)


def _line(claim: Claim, pair: tuple[str, str | None], found: Measured | None, registry: Registry) -> Line:
    a, b = pair
    paper = _paper(claim, Contrast(a, b), registry) if b is not None else None
    is_least = False
    if paper is None and claim.published is not None and claim.kind == "greater":
        paper, is_least = claim.published, len(claim.contrasts) > 1
    if found is None:
        return Line(a, b, paper=paper, paper_is_least=is_least)
    half = found.estimate.half_width() if found.estimate is not None else None
    low, high = (None, None) if half is None else (found.value - half, found.value + half)
    return Line(a, b, found.n_a, found.n_b, found.value, low, high, paper, is_least)


def _paper(claim: Claim, pair: Contrast, registry: Registry) -> float | None:
    """What the paper's tables give for the tested quantity; None where they do not have both rows on one split."""
    (table_a, row_a), (table_b, row_b) = registry.row(pair.a), registry.row(pair.b)
    if claim.metric not in METRICS or table_a.split != table_b.split or not row_a.published or not row_b.published:
        return None
    i = METRICS.index(claim.metric)
    weight = COLLAPSE_RATIO if claim.kind == "collapses" else 1.0
    return round(row_a.published[i] - weight * row_b.published[i], 6)
