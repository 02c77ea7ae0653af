"""Statistics against arithmetic by hand and, as an independent implementation, scipy.stats."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.verdicts.estimates import (
    Estimate,
    Spread,
    assumed_spread,
    cell_outcome,
    detection_power,
    holm,
    paired,
    resolvable_effect,
    seeds_needed,
    standard_error,
    t_quantile,
    welch,
)


def test_t_quantile_equals_scipy_for_finite_and_infinite_df() -> None:
    assert t_quantile(0.975, 4) == pytest.approx(stats.t.ppf(0.975, 4))
    assert t_quantile(0.95, math.inf) == pytest.approx(1.6448536, abs=1e-6)


def test_standard_error_counts_the_papers_run_and_its_rounding() -> None:
    assert standard_error(0.2, 3) == pytest.approx(math.sqrt(0.04 * 4 / 3 + 0.01 / 12))
    assert standard_error(0.3, 1, rounding=0.0) == pytest.approx(0.3 * math.sqrt(2))


@pytest.mark.parametrize(
    ("value", "error", "outcome"),
    [
        (0.1, 0.2, "reproduced"),  # 0.1 + 1.645 * 0.2 = 0.429 < 0.5
        (0.2, 0.2, "consistent"),  # 0.529 leaves the margin; 0.2 < 1.96 * 0.2
        (0.9, 0.2, "not reproduced"),  # 0.9 - 0.329 = 0.571 > 0.5
        (0.7, 0.2, "inconclusive"),  # 0.371..1.029 straddles 0.5, and 0.7 > 0.392
        (-0.9, 0.2, "not reproduced"),
        (0.35, 0.05, "reproduced"),  # significant (7 SE), yet inside the margin: the order of the tests matters
        (3.0, 2.0, "consistent"),  # nothing is known
    ],
)
def test_cell_outcome_follows_the_declared_order(value: float, error: float, outcome: str) -> None:
    assert cell_outcome(Estimate(value, error, math.inf), delta=0.5) == outcome


def test_cell_outcome_needs_a_tenth_of_a_point_at_three_seeds_and_known_deviation() -> None:
    error = standard_error(0.2, 3)
    reach = {D: cell_outcome(Estimate(D, error, math.inf), 0.5) for D in (0.10, 0.15)}
    assert reach == {0.10: "reproduced", 0.15: "consistent"}


def test_estimate_half_width_and_tails_equal_scipy() -> None:
    estimate = Estimate(1.2, 0.5, 7)
    assert estimate.half_width() == pytest.approx(0.5 * stats.t.ppf(0.975, 7))
    assert estimate.p_above(0.2) == pytest.approx(stats.t.sf(1.0 / 0.5, 7))
    assert estimate.p_below(0.2) == pytest.approx(stats.t.cdf(1.0 / 0.5, 7))


def test_estimate_p_values_are_certain_for_identical_runs() -> None:
    same, apart = Estimate(0.0, 0.0, 2), Estimate(1.0, 0.0, 2)
    assert (same.p_above(), apart.p_above(), apart.p_below()) == (0.5, 0.0, 1.0)


A, B = [31.0, 32.5, 30.4, 31.7], [33.1, 32.0, 34.2]


def test_welch_equals_scipy_and_handles_a_factor() -> None:
    assert welch(A, B).p_below() == pytest.approx(stats.ttest_ind(A, B, equal_var=False, alternative="less").pvalue)
    halved = [b / 2 for b in B]
    expected = stats.ttest_ind(A, halved, equal_var=False, alternative="less")
    estimate = welch(A, B, 0.5)
    assert estimate.df == pytest.approx(expected.df)
    assert estimate.p_below() == pytest.approx(expected.pvalue)


def test_welch_of_constant_rows_has_no_error() -> None:
    assert welch([0.0, 0.0], [4.0, 4.0, 4.0]) == Estimate(-4.0, 0.0, 1)


def test_paired_equals_scipy() -> None:
    assert paired(A[:3], B).p_above() == pytest.approx(stats.ttest_rel(A[:3], B, alternative="greater").pvalue)


def test_assumed_spread_is_an_interval_from_a_half_to_twice() -> None:
    spread = assumed_spread(0.2)
    assert spread.assumed
    assert spread.interval == (0.1, 0.4)
    assert Spread(sd=0.2, df=3, num_rows=2).interval == (0.2, 0.2)


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        (0.10, "reproduced"),  # 0.10 + 1.645 * 0.2 = 0.43: at the largest error too
        (0.90, "not reproduced"),  # 0.90 - 0.33 = 0.57
        (0.30, "inconclusive"),  # 0.30 + 0.33 leaves the margin; at the smallest error 0.30 > 1.96 * 0.05 is no chance
    ],
)
def test_cell_outcome_holds_at_both_ends_of_an_interval(value: float, outcome: str) -> None:
    wide, narrow = Estimate(value, 0.2, math.inf), Estimate(value, 0.05, math.inf)
    assert cell_outcome(wide, 0.5, narrow) == outcome


def test_holm_steps_down_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.04 times 3, 2, 1: 0.03, 0.04, 0.04.
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    # Monotone: the second, 2 * 0.011 = 0.022, may not fall below the first's 0.03; and never above 1.
    assert holm([0.01, 0.011, 0.9]) == pytest.approx([0.03, 0.03, 0.9])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_lies_between_the_raw_and_bonferronis_p(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= q <= min(1.0, len(p_values) * p) + 1e-12 for p, q in zip(p_values, adjusted, strict=True))


def test_detection_power_equals_scipys_noncentral_t() -> None:
    df, shift = 2 * 12, 1.0 / math.sqrt(2 / 13)
    expected = stats.nct.sf(stats.t.ppf(0.95, df), df, shift)
    assert detection_power(0.2, 0.2, 13, num_rows=2) == pytest.approx(expected)


def test_seeds_needed_is_thirteen_at_one_deviation() -> None:
    assert seeds_needed(0.2, 0.2) == 13
    # A deviation from the two rows alone costs a fourteenth; a known one (normal) takes 2 (1.645 + 0.842)^2 = 12.4.
    assert seeds_needed(0.2, 0.2, num_rows=2) == 14
    assert seeds_needed(0.2, 0.2, num_rows=10_000) == 13


@pytest.mark.parametrize(("effect", "alpha"), [(0.1, 0.05), (0.4, 0.05), (0.3, 0.05 / 17), (2.0, 0.05)])
def test_seeds_needed_is_the_smallest_number_with_the_power(effect: float, alpha: float) -> None:
    n = seeds_needed(effect, 0.2, alpha=alpha)
    assert detection_power(effect, 0.2, n, alpha=alpha) >= 0.8
    assert n == 2 or detection_power(effect, 0.2, n - 1, alpha=alpha) < 0.8


@pytest.mark.parametrize(("effect", "sd"), [(0.0, 0.2), (0.2, 0.0)])
def test_seeds_needed_rejects_what_no_number_of_seeds_shows(effect: float, sd: float) -> None:
    with pytest.raises(ValueError, match="effect must not be 0"):
        seeds_needed(effect, sd)


def test_resolvable_effect_inverts_seeds_needed() -> None:
    effect = resolvable_effect(13, 0.2)
    assert effect < 0.2 < resolvable_effect(12, 0.2)
    assert detection_power(effect, 0.2, 13) == pytest.approx(0.8, abs=1e-4)


def test_resolvable_effect_is_infinite_for_one_seed() -> None:
    assert resolvable_effect(1, 0.2) == math.inf
