"""Does the paper hold? A verdict for each cell (ours against the published number) and each claim (ours against ours).

Rows are compared seed by seed where their seeds match (``contrasts``). A claim is decided by one-sided t-tests at 5%,
adjusted by Holm over every claim that the profile can decide, whatever was asked for; the tests for ``supported`` are
one family, those for ``contradicted`` (the opposite direction) another. Several contrasts: all must hold
(intersection-union, so the largest p-value counts), and one that is contradicted contradicts the claim (Bonferroni over
the contrasts).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from harness.registry.claims import Claim
from harness.verdicts.estimates import (
    ALPHA,
    POWER,
    CellOutcome,
    Estimate,
    cell_outcome,
    holm,
    seeds_needed,
    standard_error,
)
from harness.verdicts.measure import SEEDS_TO_TEST_A_COLLAPSE
from harness.verdicts.measure import Measured as Measured
from harness.verdicts.measure import measure as measure
from harness.verdicts.runs import ProfileRuns
from harness.verdicts.sequential import overall

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
    spread = runs.spread(ref, metric)
    if spread is None:
        return CellVerdict("inconclusive", n, mean, sd, mean - published, provisional=True)
    narrow, wide = (Estimate(mean - published, standard_error(end, n), spread.df) for end in spread.interval)
    return CellVerdict(
        outcome=cell_outcome(wide, DELTA[metric], narrow),
        n=n,
        mean=mean,
        sd=sd,
        difference=wide.value,
        half_width=wide.half_width(),
        provisional=spread.assumed or spread.borrowed,
    )


def judge_claims(
    claims: Sequence[Claim], runs: ProfileRuns, profile: str, looks: Sequence[int] = ()
) -> list[ClaimVerdict]:
    """Verdicts in the order of ``claims``, which must be all of one family: Holm corrects for those of this profile.

    The paper's claims are one family, the user's own another. ``runs``: of every table that the claims speak of; for
    the paper's claims without the user's own rows. ``looks``: seeds per row at which it was decided beforehand to look;
    a claim whose rows have another number is not tested.
    """
    measured = {claim.id: measure(claim, runs) for claim in claims}
    family = [claim for claim in claims if profile in claim.decidable_in]
    alpha = ALPHA / max(1, len(family))
    seeds = {claim.id: min((pair.n for pair in measured[claim.id]), default=0) for claim in family}
    p_for = holm([_at_look(_p_for(claim, measured[claim.id]), looks, seeds[claim.id], alpha) for claim in family])
    p_against = holm([_at_look(_p_against(measured[claim.id]), looks, seeds[claim.id], alpha) for claim in family])
    decided = {
        claim.id: _decide(claim, measured[claim.id], p, q, profile, runs, looks)
        for claim, p, q in zip(family, p_for, p_against, strict=True)
    }
    verdicts = []
    for claim in claims:
        known = decided.get(claim.id)
        verdict = known or ClaimVerdict(claim, "not decidable here", claim.reason(profile), measured[claim.id])
        needed = _seeds(claim, measured[claim.id], runs, alpha if known else ALPHA)
        verdicts.append(replace(verdict, seeds=needed))
    return verdicts


def _at_look(p_value: float, looks: Sequence[int], n: int, alpha: float) -> float:
    """The p-value as it counts where ``looks`` were named; ``alpha``: of Holm's first step."""
    if not looks:
        return p_value
    return overall(p_value, looks, n, alpha) if n in looks else 1.0


def _decide(
    claim: Claim,
    measured: tuple[Measured, ...],
    p_for: float,
    p_against: float,
    profile: str,
    runs: ProfileRuns,
    looks: Sequence[int],
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
    fewest = min(pair.n for pair in measured)
    if claim.kind == "collapses" and fewest < SEEDS_TO_TEST_A_COLLAPSE:
        return _by_ratio(claim, measured)
    single = [ref for ref in claim.refs() if len(runs.values(ref, claim.metric)) < 2]
    if single:
        return ClaimVerdict(claim, "undecided", f"one seed of {', '.join(single)}; two or more can decide", measured)
    if looks and fewest not in looks:
        named = ", ".join(map(str, looks))
        reason = f"not tested: a row has {fewest} seeds, and the looks named are at {named}"
        return ClaimVerdict(claim, "undecided", reason, measured)
    return ClaimVerdict(claim, "undecided", "the difference is within the noise of the seeds", measured, p_for)


def _by_ratio(claim: Claim, measured: tuple[Measured, ...]) -> ClaimVerdict:
    """One or two seeds show a collapse, provisionally: a below half of b. Nothing is below half of 0."""
    if any(not pair.mean_b for pair in measured):
        return ClaimVerdict(claim, "undecided", "the row to compare with has an AP of 0", measured)
    holds = all(pair.value < 0 for pair in measured)
    fewest = min(pair.n for pair in measured)
    have = "one seed" if fewest == 1 else f"{fewest} seeds"
    reason = f"by the ratio of the means; provisional: a row has {have}, and a test takes {SEEDS_TO_TEST_A_COLLAPSE}"
    return ClaimVerdict(claim, "supported" if holds else "contradicted", reason, measured, provisional=True)


def _p_for(claim: Claim, measured: Sequence[Measured]) -> float:
    complete = len(measured) == max(1, len(claim.contrasts))
    return max(pair.p_for for pair in measured) if complete else 1.0


def _p_against(measured: Sequence[Measured]) -> float:
    return min([1.0, *(len(measured) * pair.p_against for pair in measured)])


def _seeds(claim: Claim, measured: Sequence[Measured], runs: ProfileRuns, alpha: float) -> int | None:
    """Seeds per row that show the published effect (for ``similar``: its distance to the margin) at the deviation here.

    Where all contrasts were measured at the same seeds, by the deviation of such differences; else as independent runs.
    A row that collapsed is left out: its scatter is not what the paper's difference would be seen against.
    None for two tests of the same trainings: their difference has a deviation of its own, far below that of the rows.
    """
    if claim.published is None or claim.kind not in ("greater", "similar"):
        return None
    if any(pair.design == "same trainings" for pair in measured):
        return None
    effect = claim.published if claim.margin is None else claim.margin - claim.published
    if effect <= 0:
        return None
    alike = [pair for pair in measured if runs.collapsed.isdisjoint({pair.a, pair.b})]
    at_same_seeds = [
        (pair.estimate, pair.n)
        for pair in alike
        if pair.design.startswith("same seeds") and pair.n_a == pair.n_b > 1 and pair.estimate
    ]
    wanted = len(claim.contrasts) - (len(measured) - len(alike))
    if at_same_seeds and len(at_same_seeds) == wanted:
        widest, n = max(at_same_seeds, key=lambda item: item[0].standard_error)
        sd = widest.standard_error * n**0.5
        return seeds_needed(effect, sd, POWER, alpha, arms=1, num_rows=widest.df / (n - 1)) if sd > 0 else None
    refs: list[str | None] = [ref for ref in claim.refs() if ref in runs.rows and ref not in runs.collapsed]
    spreads = [spread for ref in refs or [None] if (spread := runs.spread(ref, claim.metric)) and spread.sd > 0]
    if not spreads:
        return None
    loosest = max(spreads, key=lambda spread: spread.sd)
    return seeds_needed(effect, loosest.sd, POWER, alpha, num_rows=loosest.num_rows)
