"""Variances of rows and seeds against arithmetic by hand, scipy, and the linear models of statsmodels."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from scipy import stats

from harness.verdicts.blocks import blocks

# Two rows at three seeds. Within rows: (1, 0, -1) and (2, 0, -2) after centring. Means of the seeds: 1.5, 0, -1.5.
BY_HAND = [{0: 11.0, 1: 10.0, 2: 9.0}, {0: 22.0, 1: 20.0, 2: 18.0}]


def rows(seed: int, num_rows: int, num_seeds: int, share: float) -> list[dict[int, float]]:
    """Rows of total variance 1."""
    rng = np.random.default_rng(seed)
    values = share**0.5 * rng.normal(size=num_seeds) + (1 - share) ** 0.5 * rng.normal(size=(num_rows, num_seeds))
    return [dict(enumerate(map(float, row))) for row in values]


UNEVEN: list[dict[int, float]] = [
    {seed: value for seed, value in row.items() if seed not in left_out}
    for row, left_out in zip(rows(1, 5, 5, 0.6), [{3, 4}, {0}, set(), {1, 2, 3}, {4}], strict=True)
]


def test_blocks_split_variance_by_hand() -> None:
    found = blocks([*BY_HAND, {0: 99.0}])  # a single seed says nothing
    assert found is not None
    # Squares within rows: 2 + 8 = 10 on 4 degrees of freedom; of seeds 2 (1.5^2 + 1.5^2) = 9 on 2; the rest 1 on 2.
    assert (found.df_within, found.df_seeds, found.df_residual, found.num_rows) == (4, 2, 2, 2)
    assert found.total == pytest.approx(2.5)
    assert found.residual == pytest.approx(0.5)
    assert found.share == pytest.approx(0.8)


def test_blocks_of_rows_with_some_common_seeds_are_least_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    chance, solved = random.Random(1), list[int]()
    inverse = np.linalg.pinv

    def spy(matrix: Any, **options: Any) -> Any:
        solved.append(len(matrix))
        return inverse(matrix, **options)

    for _ in range(30):
        seed_effects = [chance.gauss(0, 1) for _ in range(40)]
        rows = []
        for row in range(6):
            seeds = chance.sample(range(40), chance.randint(2, 30))
            rows.append({seed: 7.0 * row + seed_effects[seed] + chance.gauss(0, 0.5) for seed in seeds})
        names = sorted({seed for row in rows for seed in row})
        design = np.zeros((sum(map(len, rows)), len(rows) + len(names)))
        for line, (i, seed) in enumerate((i, seed) for i, row in enumerate(rows) for seed in row):
            design[line, [i, len(rows) + names.index(seed)]] = 1.0
        values = np.array([value for row in rows for value in row.values()])
        left = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
        rank = int(np.linalg.matrix_rank(design))
        with monkeypatch.context() as patch:
            patch.setattr("numpy.linalg.pinv", spy)
            found = blocks(rows)
        assert found is not None
        assert found.df_residual == len(values) - rank
        assert found.df_seeds == rank - len(rows)
        assert found.residual == pytest.approx(left @ left / (len(values) - rank), rel=1e-9)
    assert set(solved) == {6}  # as many equations as rows: seeds may be thousands


def test_blocks_are_none_without_a_second_seed() -> None:
    assert blocks([{0: 10.0}, {1: 20.0}]) is None


def test_blocks_of_one_row_know_no_share_and_keep_its_degrees_of_freedom() -> None:
    found = blocks([{0: 1.0, 1: 2.0, 2: 4.0}])
    assert found is not None
    assert (found.residual, found.share, found.share_interval()) == (None, None, (0.0, 1.0))
    assert found.combined(1.0, 0.0) == pytest.approx((np.var([1, 2, 4], ddof=1), 2))


def test_blocks_of_rows_without_common_seeds_are_independent_samples() -> None:
    found = blocks([{0: 1.0, 1: 2.0}, {2: 5.0, 3: 9.0, 4: 2.0}])
    assert found is not None
    assert found.share is None
    assert found.combined(1.0, 0.0)[1] == pytest.approx(1 + 2)


def test_total_has_satterthwaites_degrees_of_freedom() -> None:
    found = blocks(rows(0, 12, 3, 0.8))
    assert found is not None
    few = found.combined(1.0, 0.0)[1]
    assert 2.0 <= few < 4.0  # not the 24 of independent rows
    assert found.combined(0.0, 1.0) == pytest.approx((found.residual, 22))
    # Mean square of seeds / 12 on 2 degrees of freedom plus 11 / 12 of the residual on 22, at the cautious share.
    share = found.share_bound(0.8)
    seeds, error = (1 + 11 * share) / 12, 11 / 12 * (1 - share)
    assert few == pytest.approx(1 / (seeds**2 / 2 + error**2 / 22))


@pytest.mark.parametrize("uneven", [False, True])
def test_residual_is_that_of_a_linear_model_of_rows_and_seeds(uneven: bool) -> None:
    sm = pytest.importorskip("statsmodels.api")
    data = UNEVEN if uneven else rows(2, 4, 5, 0.5)
    y, design = design_of(data)
    fitted: Any = sm.OLS(y, design).fit()
    found = blocks(data)
    assert found is not None
    assert found.df_residual == fitted.df_resid
    assert found.residual == pytest.approx(fitted.mse_resid)


def test_seed_variance_is_that_of_a_mixed_model() -> None:
    """Restricted maximum likelihood equals the moments where all rows have the same seeds."""
    pytest.importorskip("statsmodels.api")
    from statsmodels.regression.mixed_linear_model import MixedLM

    data = rows(5, 6, 8, 0.6)
    y, _ = design_of(data)
    row = np.repeat(np.arange(6), 8)
    fitted = MixedLM(y, np.eye(6)[row], groups=np.tile(np.arange(8), 6)).fit(reml=True)
    found = blocks(data)
    assert found is not None
    assert found.residual is not None
    assert found.residual == pytest.approx(fitted.scale, rel=1e-3)
    assert found.total - found.residual == pytest.approx(float(fitted.cov_re[0, 0]), rel=1e-2)


def design_of(data: list[dict[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Values, and indicators of rows and of all seeds but the last."""
    seeds = sorted({seed for row in data for seed in row})
    lines = [(i, seeds.index(seed), value) for i, row in enumerate(data) for seed, value in row.items()]
    design = np.zeros((len(lines), len(data) + len(seeds)))
    for k, (i, j, _) in enumerate(lines):
        design[k, i] = design[k, len(data) + j] = 1.0
    return np.array([value for *_, value in lines]), design[:, :-1]


def test_share_interval_is_that_of_the_f_ratio() -> None:
    found = blocks(rows(3, 4, 5, 0.5))
    assert found is not None
    assert found.residual is not None
    seeds = (16 * found.total - 12 * found.residual) / 4
    low = (seeds / found.residual / stats.f.ppf(0.975, 4, 12) - 1) / 4
    assert found.share_interval()[0] == pytest.approx(max(0.0, low) / (1 + max(0.0, low)))
    assert found.share_interval()[0] <= (found.share or 0.0) <= found.share_interval()[1]


def test_share_interval_covers_the_truth() -> None:
    hits = 0
    for i in range(400):
        found = blocks(rows(i, 6, 3, 0.8))
        assert found is not None
        low, high = found.share_interval()
        hits += low <= 0.8 <= high
    assert 0.93 <= hits / 400 <= 0.975


def test_blocks_of_equal_rows_do_not_divide_by_nothing() -> None:
    still = blocks([{0: 1.0, 1: 1.0}, {0: 2.0, 1: 2.0}])
    assert still is not None
    assert (still.total, still.residual, still.share) == (0.0, 0.0, None)
    assert still.combined(1.0, 0.0)[0] == 0.0
    found = blocks([{0: 1.0, 1: 2.0}, {0: 2.0, 1: 3.0}])  # all of it the seed's
    assert found is not None
    assert found.share == 1.0
    assert found.combined(0.0, 1.0)[0] == 0.0
