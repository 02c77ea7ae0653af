"""A statement as a contrast between rows that were trained here, as ``claims.yaml`` writes it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

ClaimMetric = Literal[
    "AP",
    "AP50",
    "AP75",
    "APS",
    "APM",
    "APL",
    "positive_score",
    "negative_score",
    "foreground_gap",
    "score_deviation_ratio",
    "low_score_share",
    "negative_evenness",
]
ClaimKind = Literal["greater", "similar", "collapses", "above", "below", "between"]
# What is shown on one line, so that nothing in a file can look like a line of ours.
ONE_LINE = r"^[^\n\r\v\f\x1c-\x1e\x85\u2028\u2029]*$(?!\n)"
Line = Annotated[str, Meta(pattern=ONE_LINE, max_length=2000)]
Ref = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$(?!\n)")]


class Contrast(Struct, frozen=True, forbid_unknown_fields=True):
    """Two rows, ``table/row`` each: ``a`` is the one that the claim speaks of, ``b`` what it is compared with."""

    a: Ref
    b: Ref


class Claim(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One claim.

    ``kind``: greater (every a > b), similar (every abs(a - b) < ``margin``), collapses (every a < b / 2), above or
    below (the metric of ``row`` above or below ``threshold``), between (the metric of ``row``, or every a - b, between
    ``low`` and ``high``). ``metric``: AP..APL in percent, the mean sigmoid score (0..1) of the positive or negative
    entries over the test images, or another figure of these scores (``harness.store.score_figures``). ``published``:
    the difference that the paper prints, in the metric's units: the smallest of several contrasts, for ``similar`` the
    largest. ``decidable_in``: profiles whose runs can decide the claim; ``reasons``: by profile, why its runs cannot. A
    profile in neither cannot decide the claim, since nobody has said that it can.
    """

    id: Annotated[str, Meta(pattern=r"^[a-z0-9-]+$(?!\n)")]
    text: Line
    where: Line
    metric: ClaimMetric
    kind: ClaimKind
    decidable_in: tuple[str, ...]
    reasons: dict[str, Line] = {}
    contrasts: tuple[Contrast, ...] = ()
    row: Ref | None = None
    threshold: float | None = None
    margin: Annotated[float, Meta(gt=0)] | None = None
    low: float | None = None
    high: float | None = None
    published: Annotated[float, Meta(gt=0)] | None = None

    def __post_init__(self) -> None:
        """Reject fields that the kind does not read (msgspec turns the ValueError into a ValidationError)."""
        has_threshold = self.kind in ("above", "below")
        about_row = has_threshold or (self.kind == "between" and self.row is not None)
        given = (self.row is not None, self.threshold is not None, not self.contrasts)
        if given != (about_row, has_threshold, about_row):
            takes = {"above": "row and threshold", "below": "row and threshold", "between": "row or contrasts"}
            raise ValueError(f"claim {self.id!r}: kind {self.kind!r} takes {takes.get(self.kind, 'contrasts')} only")
        if (self.low is not None, self.high is not None) != (self.kind == "between",) * 2:
            raise ValueError(f"claim {self.id!r}: low and high belong to the kind 'between', and only to it")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"claim {self.id!r}: low is {self.low}, not below high, {self.high}")
        if (self.kind == "similar") != (self.margin is not None):
            raise ValueError(f"claim {self.id!r}: a margin belongs to the kind 'similar', and only to it")
        if both := set(self.decidable_in) & set(self.reasons):
            raise ValueError(f"claim {self.id!r}: both decidable and with a reason against it: {sorted(both)}")

    def refs(self) -> tuple[str, ...]:
        """Every row that the claim needs, once, in the order of the file."""
        named = [self.row] if self.row else [ref for pair in self.contrasts for ref in (pair.a, pair.b)]
        return tuple(dict.fromkeys(named))

    def reason(self, profile: str) -> str:
        """Why the runs of ``profile`` cannot decide the claim."""
        undeclared = (
            f"nobody has declared it for profile {profile} (decidable_in or reasons of this claim, in claims.yaml)"
        )
        return self.reasons.get(profile, undeclared)
