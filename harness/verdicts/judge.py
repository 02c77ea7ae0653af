"""Does the paper hold? A verdict for each cell (ours against the published number) and each claim (ours against ours).

A claim is decided by one-sided t-tests at 5%, adjusted by Holm over every claim that the profile can decide, whatever
was asked for; the tests for ``supported`` are one family, those for ``contradicted`` (the opposite direction) another.
Several contrasts: all must hold (intersection-union, so the largest p-value counts), and one that is contradicted
contradicts the claim (Bonferroni over the contrasts).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from harness.registry.claims import Claim, Contrast
from harness.verdicts.estimates import (
    ALPHA,
    POWER,
    CellOutcome,
    Estimate,
    Spread,
    cell_outcome,
    holm,
    one_sample,
    paired,
    pooled_spread,
    seeds_needed,
    standard_error,
    two_sample,
    welch,
)
from harness.verdicts.intervals import p_between
from harness.verdicts.runs import COLLAPSE_RATIO, ProfileRuns

# What counts as the same number, declared beforehand (AP points): the size classes have fewer objects, so more noise.
DELTA: dict[str, float] = {"AP": 0.5, "AP50": 0.5, "AP75": 0.5, "APS": 1.0, "APM": 1.0, "APL": 1.0}

ClaimOutcome = Literal["supported", "contradicted", "undecided", "not decidable here"]


@dataclass(frozen=True)
class CellVerdict:
    """Our mean of ``n`` seeds against the published number, in AP points.

    ``half_width`` is t(0.975) SE of the difference. ``provisional``: the deviation behind it is assumed, or another
    row's. None where there is nothing to compute.
    """

    outcome: CellOutcome | Literal["pending"]
    n: int
    mean: float | None = None
    sd: float | None = None
    difference: float | None = None
    half_width: float | None = None
    provisional: bool = False


@dataclass(frozen=True)
class Measured:
    """One contrast as measured. ``quantity``: what was tested ("a - b", "a - b / 2" or "a").

    ``estimate``: None where the runs give no standard error. ``p_for`` and ``p_against``: one-sided, not adjusted, 1
    where nothing was tested (a row with one seed).
    """

    a: str
    b: str | None
    n_a: int
    n_b: int
    mean_a: float
    mean_b: float | None
    quantity: Literal["a - b", "a - b / 2", "a"]
    value: float
    estimate: Estimate | None
    p_for: float = 1.0
    p_against: float = 1.0


@dataclass(frozen=True)
class ClaimVerdict:
    """The verdict on one claim.

    ``p_value``: adjusted, against the claim where it is contradicted, else for it; None where nothing was tested.
    ``seeds``: per row, to show the published effect with 80% power at the deviation here, even as Holm's first step;
    None where the paper prints no effect. ``provisional``: decided by a single seed.
    """

    claim: Claim
    outcome: ClaimOutcome
    reason: str
    measured: tuple[Measured, ...]
    p_value: float | None = None
    seeds: int | None = None
    provisional: bool = False


def judge_cell(ref: str, metric: str, published: float, runs: ProfileRuns) -> CellVerdict:
    """The verdict on one number of a table; only meaningful at the paper's own scale."""
    values = runs.values(ref, metric)
    if not values:
        return CellVerdict("pending", 0)
    n, mean = len(values), statistics.fmean(values)
    sd = statistics.stdev(values) if n > 1 else None
    own = pooled_spread([values]) if ref in runs.collapsed else None
    spread = own or runs.spread(runs.rows[ref].pool, metric)
    if spread is None:
        return CellVerdict("inconclusive", n, mean, sd, mean - published, provisional=True)
    difference = Estimate(mean - published, standard_error(spread.sd, n), spread.df)
    return CellVerdict(
        outcome=cell_outcome(difference, DELTA[metric]),
        n=n,
        mean=mean,
        sd=sd,
        difference=difference.value,
        half_width=difference.half_width(),
        provisional=spread.assumed or (ref in runs.collapsed and own is None),
    )


def judge_claims(claims: Sequence[Claim], runs: ProfileRuns, profile: str) -> list[ClaimVerdict]:
    """Verdicts in the order of ``claims``, which must be all of one family: Holm corrects for those of this profile.

    The paper's claims are one family, the user's own another. ``runs``: of every table that the claims speak of; for
    the paper's claims without the user's own rows.
    """
    measured = {claim.id: _measure_all(claim, runs) for claim in claims}
    family = [claim for claim in claims if profile in claim.decidable_in]
    p_for = holm([_p_for(claim, measured[claim.id]) for claim in family])
    p_against = holm([_p_against(measured[claim.id]) for claim in family])
    decided = {
        claim.id: _decide(claim, measured[claim.id], p, q, profile, runs)
        for claim, p, q in zip(family, p_for, p_against, strict=True)
    }
    verdicts = []
    for claim in claims:
        known = decided.get(claim.id)
        alpha = ALPHA / len(family) if known else ALPHA
        verdict = known or ClaimVerdict(claim, "not decidable here", claim.reason(profile), measured[claim.id])
        verdicts.append(replace(verdict, seeds=_seeds(claim, runs, alpha)))
    return verdicts


def _decide(
    claim: Claim, measured: tuple[Measured, ...], p_for: float, p_against: float, profile: str, runs: ProfileRuns
) -> ClaimVerdict:
    if p_for < ALPHA:
        return ClaimVerdict(claim, "supported", "", measured, p_for)
    if p_against < ALPHA:
        return ClaimVerdict(claim, "contradicted", "", measured, p_against)
    missing = [ref for ref in claim.refs() if not runs.values(ref, claim.metric)]
    if missing and all(ref in runs.rows for ref in missing):
        reason = f"the records of {', '.join(missing)} do not say it: those of format 1 have no spread of scores"
        return ClaimVerdict(claim, "not decidable here", reason, measured)
    if missing:
        reason = f"no run of {', '.join(missing)}; next: harness run {missing[0]} --profile {profile}"
        return ClaimVerdict(claim, "undecided", reason, measured)
    single = [ref for ref in claim.refs() if len(runs.values(ref, claim.metric)) < 2]
    if single and claim.kind == "collapses":
        return _by_ratio(claim, measured)
    if single:
        return ClaimVerdict(claim, "undecided", f"one seed of {', '.join(single)}; two or more can decide", measured)
    return ClaimVerdict(claim, "undecided", "the difference is within the noise of the seeds", measured, p_for)


def _by_ratio(claim: Claim, measured: tuple[Measured, ...]) -> ClaimVerdict:
    """A collapse is so large that one seed shows it, provisionally: a below half of b. Nothing is below half of 0."""
    if any(not pair.mean_b for pair in measured):
        return ClaimVerdict(claim, "undecided", "the row to compare with has an AP of 0", measured)
    holds = all(pair.value < 0 for pair in measured)
    reason = "by the ratio of the means; provisional: a row has one seed, so there is no test"
    return ClaimVerdict(claim, "supported" if holds else "contradicted", reason, measured, provisional=True)


def _p_for(claim: Claim, measured: Sequence[Measured]) -> float:
    complete = len(measured) == max(1, len(claim.contrasts))
    return max(pair.p_for for pair in measured) if complete else 1.0


def _p_against(measured: Sequence[Measured]) -> float:
    return min([1.0, *(len(measured) * pair.p_against for pair in measured)])


def _measure_all(claim: Claim, runs: ProfileRuns) -> tuple[Measured, ...]:
    """The contrasts of which both rows have runs."""
    if claim.row is not None:
        return _measure_row(claim, claim.row, runs)
    return tuple(
        _measure(claim, pair, runs)
        for pair in claim.contrasts
        if runs.values(pair.a, claim.metric) and runs.values(pair.b, claim.metric)
    )


def _measure_row(claim: Claim, ref: str, runs: ProfileRuns) -> tuple[Measured, ...]:
    values = runs.values(ref, claim.metric)
    if not values:
        return ()
    spread = _spread(ref, claim.metric, runs)
    estimate = one_sample(values, spread) if spread else None
    p_for = p_against = 1.0
    if estimate and len(values) > 1 and claim.low is not None and claim.high is not None:
        p_for, p_against = p_between(estimate, claim.low, claim.high)
    elif estimate and len(values) > 1:
        assert claim.threshold is not None  # Claim checks it
        p_for, p_against = estimate.p_above(claim.threshold), estimate.p_below(claim.threshold)
        if claim.kind == "below":
            p_for, p_against = p_against, p_for
    mean = statistics.fmean(values)
    return (Measured(ref, None, len(values), 0, mean, None, "a", mean, estimate, p_for, p_against),)


def _spread(ref: str, metric: str, runs: ProfileRuns) -> Spread | None:
    """The pool's deviation, or the row's own where it collapsed."""
    if ref in runs.collapsed:
        return pooled_spread([runs.values(ref, metric)])
    return runs.spread(runs.rows[ref].pool, metric)


def _measure(claim: Claim, pair: Contrast, runs: ProfileRuns) -> Measured:
    a, b = runs.values(pair.a, claim.metric), runs.values(pair.b, claim.metric)
    mean_a, mean_b = statistics.fmean(a), statistics.fmean(b)
    factor = COLLAPSE_RATIO if claim.kind == "collapses" else 1.0
    estimate = _estimate(claim, pair, runs)
    p_for = p_against = 1.0
    if estimate and min(len(a), len(b)) > 1:
        p_for, p_against = _p_values(claim, estimate)
    quantity: Literal["a - b", "a - b / 2"] = "a - b / 2" if claim.kind == "collapses" else "a - b"
    value = mean_a - factor * mean_b
    return Measured(pair.a, pair.b, len(a), len(b), mean_a, mean_b, quantity, value, estimate, p_for, p_against)


def _estimate(claim: Claim, pair: Contrast, runs: ProfileRuns) -> Estimate | None:
    """Paired for two tests of the same trainings, Welch for unequal deviations, else the pooled deviation."""
    row_a, row_b = runs.rows[pair.a], runs.rows[pair.b]
    by_a, by_b = row_a.by_training(claim.metric), row_b.by_training(claim.metric)
    a, b = list(by_a.values()), list(by_b.values())
    replicated = min(len(a), len(b)) > 1
    if claim.kind == "collapses":
        return welch(a, b, COLLAPSE_RATIO) if replicated else None
    if by_a.keys() == by_b.keys():
        return paired(a, [by_b[train_id] for train_id in by_a]) if replicated else None
    if row_a.pool != row_b.pool or not runs.collapsed.isdisjoint((pair.a, pair.b)):
        return welch(a, b) if replicated else None
    spread = runs.spread(row_a.pool, claim.metric)
    return two_sample(a, b, spread) if spread else None


def _p_values(claim: Claim, estimate: Estimate) -> tuple[float, float]:
    if claim.kind == "collapses":
        return estimate.p_below(), estimate.p_above()
    if claim.low is not None and claim.high is not None:
        return p_between(estimate, claim.low, claim.high)
    if claim.margin is None:
        return estimate.p_above(), estimate.p_below()
    return p_between(estimate, -claim.margin, claim.margin)


def _seeds(claim: Claim, runs: ProfileRuns, alpha: float) -> int | None:
    """Seeds per row that show the published effect (for ``similar``: its distance to the margin) at the deviation here.

    None for two tests of the same trainings: their difference has a deviation of its own, far below that of the rows.
    """
    if claim.published is None or claim.kind not in ("greater", "similar"):
        return None
    rows = [runs.rows[ref] for ref in claim.refs() if ref in runs.rows]
    if len({train_id for row in rows for train_id in row.train_ids}) < sum(len(row.train_ids) for row in rows):
        return None
    effect = claim.published if claim.margin is None else claim.margin - claim.published
    pools = {row.pool for row in rows} or {""}  # no run yet: the assumed deviation
    spreads = [spread for pool in pools if (spread := runs.spread(pool, claim.metric)) and spread.sd > 0]
    if not spreads or effect <= 0:
        return None
    widest = max(spreads, key=lambda spread: spread.sd)
    return seeds_needed(effect, widest.sd, POWER, alpha, num_rows=widest.num_rows)
