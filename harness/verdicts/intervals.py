"""Claims that a quantity lies in an interval ("about one point", "some 10 times"): two one-sided tests."""

from __future__ import annotations

from harness.verdicts.estimates import Estimate


def p_between(estimate: Estimate, low: float, high: float) -> tuple[float, float]:
    """p-values that the truth lies within (low, high), and that it lies outside.

    Within: both bounds must be rejected, so the larger p-value counts. Outside: either way, so twice the smaller.
    """
    within = max(estimate.p_above(low), estimate.p_below(high))
    outside = min(1.0, 2 * min(estimate.p_above(high), estimate.p_below(low)))
    return within, outside
