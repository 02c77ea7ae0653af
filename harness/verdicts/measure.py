"""What was measured of a claim: each contrast with its error, by the design of the runs, and one-sided p-values."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from harness.registry.claims import Claim, Contrast
from harness.verdicts import contrasts
from harness.verdicts.estimates import Estimate, Spread, paired
from harness.verdicts.intervals import p_between
from harness.verdicts.runs import COLLAPSE_RATIO, ProfileRuns

# A collapse is judged by the ratio of the means until both rows have as many seeds: a test with fewer has one or two
# degrees of freedom, and would take back what one seed has shown.
SEEDS_TO_TEST_A_COLLAPSE = 3

# How two rows were compared. "same seeds": in one family, whose rows tell the deviation. "same seeds, two losses": rows
# of two families. "independent": at different seeds, of different backbones, or one being a share of the other.
Design = Literal["same trainings", "same seeds", "same seeds, two losses", "independent", "one row"]


@dataclass(frozen=True)
class Measured:
    """One contrast as measured. ``quantity``: what was tested ("a - b", "a - b / 2" or "a").

    ``estimate``: None where the runs give no standard error. ``p_for`` and ``p_against``: one-sided, not adjusted, 1
    where nothing was tested (a row with one seed). ``design``: how it was compared.
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
    design: Design = "independent"

    @property
    def n(self) -> int:
        """Seeds of the row that has fewer."""
        return self.n_a if self.b is None else min(self.n_a, self.n_b)


def measure(claim: Claim, runs: ProfileRuns) -> tuple[Measured, ...]:
    """The contrasts of which both rows have runs."""
    if claim.row is not None:
        return _measure_row(claim, claim.row, runs)
    return tuple(
        _measure_pair(claim, pair, runs)
        for pair in claim.contrasts
        if runs.values(pair.a, claim.metric) and runs.values(pair.b, claim.metric)
    )


def _measure_row(claim: Claim, ref: str, runs: ProfileRuns) -> tuple[Measured, ...]:
    values = runs.values(ref, claim.metric)
    if not values:
        return ()
    family = runs.blocks(ref, claim.metric)
    estimate = contrasts.mean(runs.rows[ref].by_seed(claim.metric), family) if family else None
    p_for = p_against = 1.0
    if estimate and len(values) > 1 and claim.low is not None and claim.high is not None:
        p_for, p_against = p_between(estimate, claim.low, claim.high)
    elif estimate and len(values) > 1:
        assert claim.threshold is not None  # Claim checks it
        p_for, p_against = estimate.p_above(claim.threshold), estimate.p_below(claim.threshold)
        if claim.kind == "below":
            p_for, p_against = p_against, p_for
    mean = statistics.fmean(values)
    return (Measured(ref, None, len(values), 0, mean, None, "a", mean, estimate, p_for, p_against, "one row"),)


def _measure_pair(claim: Claim, pair: Contrast, runs: ProfileRuns) -> Measured:
    a, b = runs.values(pair.a, claim.metric), runs.values(pair.b, claim.metric)
    mean_a, mean_b = statistics.fmean(a), statistics.fmean(b)
    collapses = claim.kind == "collapses"
    design: Design = "independent" if collapses else design_of(pair, claim.metric, runs)
    estimate = _collapse(pair, claim.metric, runs) if collapses else _difference(pair, claim.metric, runs, design)
    tested = min(len(a), len(b)) >= (SEEDS_TO_TEST_A_COLLAPSE if collapses else 2)
    p_for, p_against = _p_values(claim, estimate) if estimate and tested else (1.0, 1.0)
    quantity: Literal["a - b", "a - b / 2"] = "a - b / 2" if collapses else "a - b"
    value = mean_a - (COLLAPSE_RATIO if collapses else 1.0) * mean_b
    return Measured(pair.a, pair.b, len(a), len(b), mean_a, mean_b, quantity, value, estimate, p_for, p_against, design)


def design_of(pair: Contrast, metric: str, runs: ProfileRuns) -> Design:
    """How two rows that have runs are compared."""
    a, b = runs.rows[pair.a], runs.rows[pair.b]
    if a.by_training(metric).keys() == b.by_training(metric).keys():
        return "same trainings"
    if runs.family(pair.a) == runs.family(pair.b):
        common = a.by_seed(metric).keys() & b.by_seed(metric).keys()
        return "same seeds" if common else "independent"
    same = a.pool == b.pool and a.by_seed(metric).keys() == b.by_seed(metric).keys()
    return "same seeds, two losses" if same else "independent"


def shared_variance(pair: Contrast, metric: str, runs: ProfileRuns) -> float:
    """The part (0 to 1) of the variance between seeds that two rows have in common at the same seed.

    0 where it is unknown: a row without runs or two common seeds, or rows whose seeds mean different things.
    """
    if pair.a not in runs.rows or pair.b not in runs.rows:
        return 0.0
    design = design_of(pair, metric, runs)
    blocks_a, blocks_b = runs.blocks(pair.a, metric), runs.blocks(pair.b, metric)
    if blocks_a is None or blocks_b is None:
        return 0.0
    if design == "same seeds":
        return blocks_a.share or 0.0
    estimate = _difference(pair, metric, runs, design) if design == "same seeds, two losses" else None
    total = blocks_a.total + blocks_b.total
    if estimate is None or total == 0 or len(runs.values(pair.a, metric)) < 2:
        return 0.0
    return max(0.0, 1.0 - estimate.standard_error**2 * len(runs.values(pair.a, metric)) / total)


def _difference(pair: Contrast, metric: str, runs: ProfileRuns, design: Design) -> Estimate | None:
    """The error of a - b; one seed has the deviation of other rows or an assumed one, and is shown but not tested."""
    a, b = runs.rows[pair.a].by_seed(metric), runs.rows[pair.b].by_seed(metric)
    family_a, family_b = runs.blocks(pair.a, metric), runs.blocks(pair.b, metric)
    if family_a and runs.family(pair.a) == runs.family(pair.b) and design != "same trainings":
        return contrasts.within_family(a, b, family_a)
    if min(len(a), len(b)) < 2 or family_a is None or family_b is None:
        spreads = (runs.spread(pair.a, metric), runs.spread(pair.b, metric))
        return None if design == "same trainings" else _assumed(a, b, spreads)
    if design == "same trainings":
        return paired(list(a.values()), [b[seed] for seed in a])
    if design == "same seeds, two losses":
        rows_a, rows_b = runs.family_rows(pair.a, metric), runs.family_rows(pair.b, metric)
        return contrasts.between_families(a, b, (rows_a, family_a), (rows_b, family_b))
    return contrasts.unmatched(a, b, family_a, family_b)


def _assumed(
    a: Mapping[int, float], b: Mapping[int, float], spreads: tuple[Spread | None, Spread | None]
) -> Estimate | None:
    """Of rows that no test is made of: as independent, with the upper end of what may be assumed."""
    if spreads[0] is None or spreads[1] is None:
        return None
    parts = [spread.interval[1] ** 2 / len(row) for row, spread in ((a, spreads[0]), (b, spreads[1]))]
    df = min(spread.df for spread in spreads if spread is not None)
    return Estimate(statistics.fmean(a.values()) - statistics.fmean(b.values()), sum(parts) ** 0.5, df)


def _collapse(pair: Contrast, metric: str, runs: ProfileRuns) -> Estimate | None:
    """a - b / 2: ``a`` with a deviation of its own, as the runs of a row that fails scatter otherwise."""
    a, b = runs.rows[pair.a].by_seed(metric), runs.rows[pair.b].by_seed(metric)
    if min(len(a), len(b)) < SEEDS_TO_TEST_A_COLLAPSE:
        return None
    return contrasts.unmatched(a, b, None, runs.blocks(pair.b, metric), COLLAPSE_RATIO)


def _p_values(claim: Claim, estimate: Estimate) -> tuple[float, float]:
    if claim.kind == "collapses":
        return estimate.p_below(), estimate.p_above()
    if claim.low is not None and claim.high is not None:
        return p_between(estimate, claim.low, claim.high)
    if claim.margin is None:
        return estimate.p_above(), estimate.p_below()
    return p_between(estimate, -claim.margin, claim.margin)
