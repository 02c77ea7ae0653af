"""Levels of looks against published boundaries and a simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from detector.errors import UsageError
from harness.verdicts.sequential import levels_of_looks, nominal_levels, overall, parse_looks, spent


def test_levels_are_those_of_lan_and_demets_at_five_equal_looks() -> None:
    """Bounds of Pocock's kind at a one-sided level of 0.025, as tables of group-sequential designs give them."""
    bounds = stats.norm.isf(nominal_levels((2, 4, 6, 8, 10), 0.025))
    assert bounds == pytest.approx([2.438, 2.427, 2.410, 2.397, 2.386], abs=2e-3)


def test_level_of_one_look_is_alpha() -> None:
    assert nominal_levels((5,), 0.01) == pytest.approx((0.01,), rel=1e-6)


def test_spending_ends_at_alpha() -> None:
    assert (spent(0.0, 0.05), spent(1.0, 0.05)) == pytest.approx((0.0, 0.05))


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 17])
def test_levels_together_keep_alpha(alpha: float) -> None:
    looks = (2, 3, 5)
    sums = np.cumsum(np.random.default_rng(0).normal(size=(1_000_000, 5)), axis=1)
    rejected = np.zeros(len(sums), bool)
    for n, level in zip(looks, nominal_levels(looks, alpha), strict=True):
        rejected |= sums[:, n - 1] / n**0.5 > stats.norm.isf(level)
    assert rejected.mean() == pytest.approx(alpha, abs=4 * (alpha / 1e6) ** 0.5)


def test_overall_scales_to_the_level_of_the_look() -> None:
    level = levels_of_looks((2, 3, 5), 0.05)[1]
    assert level < nominal_levels((2, 3, 5), 0.05)[1]
    assert overall(level, (2, 3, 5), 3, 0.05) == pytest.approx(0.05)
    assert overall(0.9, (2, 3, 5), 3, 0.05) == 1.0


def test_looks_are_read() -> None:
    assert parse_looks("2,3,5") == (2, 3, 5)
    for text in ("", "1,2", "3,2", "2,2", "two", "2;3", ",".join(map(str, range(2, 23)))):
        with pytest.raises(UsageError, match="--looks takes"):
            parse_looks(text)
