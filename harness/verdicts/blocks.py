"""Seeds as blocks: how much of the scatter within rows belongs to the seed, which the rows of a family share.

Same seed means same initial weights and the same order of the data in every row. So the value of row r at seed s is
taken as row_r + seed_s + error_rs, with random seed_s and error_rs. The *total* variance (of seed_s + error_rs) is what
one row shows between its seeds; the *residual* one (of error_rs) is what a comparison at the same seeds is left with.
Rows may have different seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# How sure the share of the seed must be to be no larger, where degrees of freedom are counted by it.
CAUTION = 0.8


@dataclass(frozen=True)
class Blocks:
    """Variances of the rows of one family that have two or more seeds.

    ``total``: within rows, as pooled. ``residual``: once rows and seeds are taken out; None where no two rows share two
    seeds. ``df_within``: values less rows. ``df_seeds`` and ``df_residual``: its two parts. ``overlap``: the sum of the
    squares of the matrix that says how often two seeds meet in a row (Z'CZ, with C centring each row).
    """

    total: float
    residual: float | None
    df_within: int
    df_seeds: int
    df_residual: int
    overlap: float
    num_rows: int

    @property
    def share(self) -> float | None:
        """The part of the total variance that belongs to the seed, 0 to 1; None where it cannot be estimated."""
        if self.residual is None or self.total == 0:
            return None
        return min(1.0, max(0.0, 1.0 - self.residual / self.total))

    def share_bound(self, confidence: float) -> float:
        """One-sided upper bound of the share; 1 where it cannot be estimated.

        From the F-ratio of seeds to residual: exact where all rows have the same seeds, else an approximation with the
        mean number of rows per seed.
        """
        if self.residual is None:
            return 1.0
        seeds = (self.df_within * self.total - self.df_residual * self.residual) / self.df_seeds
        if self.residual <= 0:
            return 1.0
        import scipy.special

        ratio = seeds / self.residual
        rows = self.df_within / self.df_seeds
        low = float(scipy.special.fdtri(self.df_seeds, self.df_residual, 1.0 - confidence))
        quotient = max(0.0, (ratio / low - 1.0) / rows)
        return quotient / (1.0 + quotient)

    def share_interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Two-sided confidence interval of the share; (0, 1) where it cannot be estimated."""
        if self.residual is None:
            return 0.0, 1.0
        tail = (1.0 - confidence) / 2.0
        return self.share_bound(tail), self.share_bound(1.0 - tail)

    def combined(self, total: float, residual: float) -> tuple[float, float]:
        """Value and degrees of freedom (Satterthwaite, 1946) of ``total`` times the total variance plus ``residual``
        times the residual one.

        What the degrees of freedom of the total variance are depends on the share, which few seeds show badly. An
        estimate that is too small would make the intervals too short, so its upper bound (CAUTION) counts.
        """
        left = self.residual if self.residual is not None else 0.0
        value = total * self.total + residual * left
        bound = self.share_bound(CAUTION)
        error, seed = (1.0 - bound) * self.total, bound * self.total
        m = self.df_within
        of_total = (error**2 * m + 2 * error * seed * m + seed**2 * self.overlap) / m**2
        of_residual = left**2 / self.df_residual if self.df_residual else 0.0
        spread = total**2 * of_total + residual**2 * of_residual + 2 * total * residual * left**2 / m
        return value, value**2 / spread if spread > 0 else float(self.df_residual if total == 0 else self.df_seeds)


def blocks(rows: Iterable[Mapping[int, float]]) -> Blocks | None:
    """Variances of rows, each a value by seed; None where no row has two seeds.

    The rows must be different trainings: the caller counts a shared one once.
    """
    replicated = [row for row in rows if len(row) > 1]
    if not replicated:
        return None
    within, left, df_within, df_seeds, overlap = _sums_of_squares(replicated)
    left = left if left > 1e-12 * within else 0.0  # no rounding error in the place of nothing
    df_residual = df_within - df_seeds
    return Blocks(
        total=within / df_within,
        residual=left / df_residual if df_residual else None,
        df_within=df_within,
        df_seeds=df_seeds,
        df_residual=df_residual,
        overlap=overlap,
        num_rows=len(replicated),
    )


def _sums_of_squares(rows: Sequence[Mapping[int, float]]) -> tuple[float, float, int, int, float]:
    """Within rows; left once seeds are taken out too; degrees of freedom of the first, and of the seeds; the overlap.

    Seeds are swept out first, so that the equations to solve are as many as the rows (dozens), not as the seeds.
    """
    import numpy as np

    column = {seed: i for i, seed in enumerate(sorted({seed for row in rows for seed in row}))}
    has = np.zeros((len(rows), len(column)))
    values = np.zeros_like(has)
    for i, row in enumerate(rows):
        where = [column[seed] for seed in row]
        has[i, where] = 1.0
        values[i, where] = np.fromiter(row.values(), float) - math.fsum(row.values()) / len(row)
    of_row, of_seed, common = has.sum(1), has.sum(0), has @ has.T  # common: seeds that two rows share
    swept = (values - values.sum(0) / of_seed) * has
    between_rows = np.diag(of_row) - (has / of_seed) @ has.T
    sums = swept.sum(1)
    # The equations tell differences of rows only: what is 0 but for rounding is not to be inverted.
    left = float((swept**2).sum() - sums @ np.linalg.pinv(between_rows, rcond=1e-10, hermitian=True) @ sums)
    apart = len(rows) - int(np.linalg.matrix_rank(between_rows, hermitian=True))  # groups of rows without common seeds
    overlap = (of_seed**2).sum() - 2 * (has @ of_seed / of_row).sum() + (common**2 / np.outer(of_row, of_row)).sum()
    within, df_within = float((values**2).sum()), int(has.sum()) - len(rows)
    return within, left, df_within, len(column) - apart, float(overlap)
