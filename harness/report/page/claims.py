"""The claims of the page: what the paper says, the verdict at each scale, and what was measured with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.registry.claims import Claim
from harness.registry.declarations import METRICS
from harness.report.page.grids import SIGNS, TONES
from harness.report.page.scales import Scale
from harness.report.page.tables import evidence_anchor
from harness.report.text import CLAIM_OUTCOMES, explanation_text
from harness.verdicts.judge import ClaimVerdict
from harness.verdicts.measure import Measured

_WIDTH = 200.0  # of an interval's drawing, in its own units
_MARGIN = 6.0


@dataclass(frozen=True)
class Interval:
    """One contrast as it is drawn: positions along a line of ``_WIDTH``, and the words for who does not see it.

    low, high: the ends of the 95% interval; None where there is none. zero: where no difference is. paper: the
    difference of the paper's numbers; None where it prints none.
    """

    rows: tuple[tuple[str, str], ...]  # text, anchor
    quantity: str
    words: str
    value: float
    zero: float | None
    low: float | None
    high: float | None
    paper: float | None


@dataclass(frozen=True)
class AtScale:
    """The verdict on a claim at one scale."""

    scale: str
    outcome: str
    tone: str
    provisional: bool
    why: str
    intervals: tuple[Interval, ...]

    @property
    def sign(self) -> str:
        """The verdict's sign."""
        return SIGNS[self.tone]


@dataclass(frozen=True)
class ClaimPart:
    """One claim. bounds: what decides it, in words; "" where the text says it."""

    id: str
    text: str
    where: str
    metric: str
    paper: str
    bounds: str
    own: bool
    verdicts: tuple[AtScale, ...]


def claim_parts(scales: Sequence[Scale]) -> list[ClaimPart]:
    """The paper's claims, those decided at the first scale before the others, then the user's own."""
    found: list[ClaimPart] = []
    for own in (False, True):
        by_id: dict[str, list[tuple[Scale, ClaimVerdict, int]]] = {}
        for scale in scales:
            part = scale.check.own if own else scale.check.paper
            for verdict in part.claims if part else ():
                by_id.setdefault(verdict.claim.id, []).append((scale, verdict, part.family_size if part else 0))
        order = sorted(by_id.values(), key=lambda item: min(_place(verdict) for _, verdict, _ in item))
        found += [_part(item, own=own) for item in order]
    return found


def _place(verdict: ClaimVerdict) -> int:
    """Contradicted first: what does not hold is what a reader must not miss."""
    order = ("contradicted", "undecided", "supported", "not decidable here")
    assert set(order) == set(CLAIM_OUTCOMES)
    return order.index(verdict.outcome)


def _part(found: Sequence[tuple[Scale, ClaimVerdict, int]], *, own: bool) -> ClaimPart:
    claim = found[0][1].claim
    return ClaimPart(
        id=claim.id,
        text=claim.text,
        where=claim.where,
        metric=claim.metric,
        paper="" if claim.published is None else f"{claim.published:g}",
        bounds=_bounds(claim),
        own=own,
        verdicts=tuple(_at_scale(scale, verdict, size) for scale, verdict, size in found),
    )


def _bounds(claim: Claim) -> str:
    if claim.low is not None and claim.high is not None:
        return f"between {claim.low:g} and {claim.high:g}"
    if claim.threshold is not None:
        return f"{claim.kind} {claim.threshold:g}"
    return f"within ±{claim.margin:g}" if claim.margin is not None else ""


def _at_scale(scale: Scale, verdict: ClaimVerdict, family_size: int) -> AtScale:
    why = explanation_text(verdict, family_size)
    return AtScale(
        scale=scale.name,
        outcome=verdict.outcome,
        tone=TONES[verdict.outcome],
        provisional=verdict.provisional,
        why="" if why == "." else why if why.startswith("p ") else f"{why[0].upper()}{why[1:]}",
        intervals=_intervals(scale, verdict),
    )


def _intervals(scale: Scale, verdict: ClaimVerdict) -> tuple[Interval, ...]:
    """All contrasts of a claim on one axis, so that they can be compared by eye."""
    claim = verdict.claim
    marks = [x for pair in verdict.measured for x in _ends(pair)]
    about_rows = any(pair.b is not None for pair in verdict.measured)
    papers = [scale.papers_differences.get((claim.id, pair.a, pair.b)) for pair in verdict.measured]
    marks += [0.0] if about_rows else [x for x in (claim.low, claim.high, claim.threshold) if x is not None]
    marks += [paper for paper in papers if paper is not None]
    if not marks:
        return ()
    low, high = min(marks), max(marks)
    reach = (high - low) or 1.0

    def at(value: float | None) -> float | None:
        return None if value is None else _MARGIN + (value - low) / reach * (_WIDTH - 2 * _MARGIN)

    drawn = []
    for pair, paper in zip(verdict.measured, papers, strict=True):
        half = pair.estimate.half_width() if pair.estimate else None
        drawn.append(
            Interval(
                rows=_rows(scale, pair, claim),
                quantity=pair.quantity,
                words=_words(pair, claim),
                value=at(pair.value) or 0.0,
                zero=at(0.0 if about_rows else claim.threshold),
                low=None if half is None else at(pair.value - half),
                high=None if half is None else at(pair.value + half),
                paper=at(paper),
            )
        )
    return tuple(drawn)


def _ends(pair: Measured) -> tuple[float, ...]:
    half = pair.estimate.half_width() if pair.estimate else 0.0
    return (pair.value - half, pair.value + half)


def _digits(claim: Claim) -> int:
    return 1 if claim.metric in METRICS else 3


def _rows(scale: Scale, pair: Measured, claim: Claim) -> tuple[tuple[str, str], ...]:
    digits, refs = _digits(claim), set(scale.selection.refs)
    named = [(pair.a, pair.mean_a, pair.n_a)]
    if pair.b is not None and pair.mean_b is not None:
        named.append((pair.b, pair.mean_b, pair.n_b))
    return tuple(
        (f"{ref} {mean:.{digits}f} (n {n})", evidence_anchor(scale, ref) if ref in refs else "")
        for ref, mean, n in named
    )


def _words(pair: Measured, claim: Claim) -> str:
    digits = _digits(claim)
    sign = "+z" if pair.b is not None else ""
    half = f" ±{pair.estimate.half_width():.{digits}f}" if pair.estimate else ""
    return f"{pair.value:{sign}.{digits}f}{half}"
