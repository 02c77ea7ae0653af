"""Differences of rows by their design, against scipy's t-tests."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from harness.verdicts.blocks import Blocks, blocks
from harness.verdicts.contrasts import between_families, mean, unmatched, within_family

A = {0: 31.0, 1: 32.5, 2: 30.4}
B = {0: 33.1, 1: 34.2, 2: 32.0}
C = {3: 30.0, 4: 31.9, 5: 31.4}


def family(*rows: dict[int, float]) -> Blocks:
    found = blocks(rows)
    assert found is not None
    return found


def test_two_rows_at_the_same_seeds_are_a_paired_t_test() -> None:
    expected = stats.ttest_rel(list(A.values()), list(B.values()), alternative="less")
    estimate = within_family(A, B, family(A, B))
    assert estimate.df == pytest.approx(expected.df)
    assert estimate.p_below() == pytest.approx(expected.pvalue)
    between = between_families(A, B, ([A], family(A)), ([B], family(B)))
    assert (between.df, between.p_below()) == (2, pytest.approx(expected.pvalue))


def test_a_family_lends_its_degrees_of_freedom() -> None:
    third, fourth = {0: 30.1, 1: 31.2, 2: 29.4}, {0: 32.2, 1: 33.3, 2: 31.0}
    estimate = within_family(A, B, family(A, B, third, fourth))
    assert estimate.df == pytest.approx((4 - 1) * (3 - 1))
    residual = family(A, B, third, fourth).residual
    assert residual is not None
    assert estimate.standard_error == pytest.approx(math.sqrt(2 * residual / 3))


def test_rows_at_different_seeds_are_a_classic_t_test() -> None:
    estimate = within_family(A, C, family(A, C))
    expected = stats.ttest_ind(list(A.values()), list(C.values()), alternative="less")
    assert estimate.df == pytest.approx(expected.df)
    assert estimate.p_below() == pytest.approx(expected.pvalue)


def test_a_further_seed_of_one_row_brings_its_own_variance_in() -> None:
    longer = {**B, 3: 33.0, 4: 33.9}
    rows = family(A, longer)
    estimate = within_family(A, longer, rows)
    assert rows.residual is not None
    # total (1/3 + 1/5 - 2 * 3 / 15) + residual (2 * 3 / 15): the three common seeds cancel.
    assert estimate.standard_error**2 == pytest.approx(rows.total * (1 / 3 + 1 / 5 - 0.4) + rows.residual * 0.4)


def test_between_families_adds_what_a_mean_of_rows_hides() -> None:
    other = {0: 31.3, 1: 32.0, 2: 30.9}
    estimate = between_families(A, B, ([A, other], family(A, other)), ([B], family(B)))
    means = [(A[s] + other[s]) / 2 - B[s] for s in A]
    residual = family(A, other).residual
    assert residual is not None
    assert estimate.standard_error**2 == pytest.approx((stats.tvar(means) + residual / 2) / 3)
    assert estimate.value == pytest.approx(sum(A[s] - B[s] for s in A) / 3)


def test_unmatched_without_families_is_welchs_test_with_a_factor() -> None:
    halved = [b / 2 for b in B.values()]
    expected = stats.ttest_ind(list(C.values()), halved, equal_var=False, alternative="less")
    for families in ((None, None), (family(C), family(B))):  # a family of one row is that row
        estimate = unmatched(C, B, *families, 0.5)
        assert estimate.df == pytest.approx(expected.df)
        assert estimate.p_below() == pytest.approx(expected.pvalue)


def test_mean_has_the_total_deviation() -> None:
    estimate = mean(A, family(A))
    assert estimate.p_above(30.0) == pytest.approx(
        stats.ttest_1samp(list(A.values()), 30, alternative="greater").pvalue
    )


def test_identical_runs_have_no_error() -> None:
    same = {0: 4.0, 1: 4.0}
    assert within_family(same, same, family(same, dict(same))).standard_error == 0.0
    assert unmatched({0: 0.0, 1: 0.0}, same, None, family(same), 0.5).standard_error == 0.0
