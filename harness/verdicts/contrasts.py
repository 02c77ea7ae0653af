"""Differences of rows with the error that their design gives them: at the same seeds, or not; in one family, or two.

A row is a value by seed; a family's rows are alike in everything but their loss's parameters, so that they share one
deviation (``blocks``). Degrees of freedom are Satterthwaite's (1946): those of a sum of variances, each with its own.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from harness.verdicts.blocks import CAUTION, Blocks
from harness.verdicts.estimates import Estimate, welch

Row = Mapping[int, float]


def mean(row: Row, family: Blocks) -> Estimate:
    """The mean of a row over its seeds, with the total deviation of its family."""
    value, df = family.combined(1.0 / len(row), 0.0)
    return Estimate(statistics.fmean(row.values()), math.sqrt(value), df)


def within_family(a: Row, b: Row, family: Blocks) -> Estimate:
    """mean(a) - mean(b) of two rows of one family.

    At the same n seeds the variance is 2 residual / n. A seed that only one of them has brings the seed's own variance
    in; without a common seed it is that of two independent samples, total (1 / n_a + 1 / n_b).
    """
    common = len(a.keys() & b.keys())
    apart = 1 / len(a) + 1 / len(b)
    shared = 2 * common / (len(a) * len(b)) if family.residual is not None else 0.0
    if shared >= apart:  # the same seeds; no rounding error of apart - shared
        value, df = family.combined(0.0, apart)
    else:
        value, df = family.combined(apart - shared, shared)
    return Estimate(_difference(a, b), math.sqrt(value), df)


def between_families(
    a: Row, b: Row, family_a: tuple[Sequence[Row], Blocks], family_b: tuple[Sequence[Row], Blocks]
) -> Estimate:
    """mean(a) - mean(b) of rows with the same two or more seeds in two families, each given as its rows and ``Blocks``.

    The variance of a - b at a seed is that of the difference D of the families' means at that seed, plus each family's
    residual times 1 - 1 / R for a mean of R rows. Nothing is assumed alike of the two families.
    """
    seeds = list(a)
    means = [_means(rows, row, seeds) for row, (rows, _) in ((a, family_a), (b, family_b))]
    parts = [(statistics.variance([x - y for x, y in zip(means[0][0], means[1][0], strict=True)]), len(seeds) - 1)]
    for (_, rows), (_, blocks) in zip(means, (family_a, family_b), strict=True):
        if blocks.residual is not None and rows > 1:
            parts.append((blocks.residual * (1 - 1 / rows), blocks.df_residual))
    return Estimate(_difference(a, b), math.sqrt(sum(part for part, _ in parts) / len(seeds)), _satterthwaite(parts))


def _means(rows: Sequence[Row], own: Row, seeds: Sequence[int]) -> tuple[list[float], int]:
    """By seed, the mean of a family's rows that have all of ``seeds``, of which ``own`` is one; and their number."""
    complete = [row for row in rows if all(seed in row for seed in seeds)] or [own]
    return [statistics.fmean(row[seed] for row in complete) for seed in seeds], len(complete)


def unmatched(a: Row, b: Row, family_a: Blocks | None, family_b: Blocks | None, factor: float = 1.0) -> Estimate:
    """mean(a) - factor * mean(b) of independent runs with unequal deviations (Welch, 1947), two or more on each side.

    Each side has the total deviation of its family; None: that of the row alone.
    """
    if family_a is None and family_b is None:
        return welch(list(a.values()), list(b.values()), factor)
    parts = []
    for row, family, weight in ((a, family_a, 1.0), (b, family_b, factor**2)):
        if family is None:
            parts.append((weight * statistics.variance(row.values()) / len(row), float(len(row) - 1)))
        else:
            parts.append(family.combined(weight / len(row), 0.0))
    error = math.sqrt(sum(part for part, _ in parts))
    value = statistics.fmean(a.values()) - factor * statistics.fmean(b.values())
    df = sum(part for part, _ in parts) ** 2
    weights = sum(part**2 / df_part for part, df_part in parts)
    return Estimate(value, error, df / weights if weights > 0 else min(len(a), len(b)) - 1)


def _satterthwaite(parts: Sequence[tuple[float, float]]) -> float:
    """Degrees of freedom of a sum of variances, each given with its own.

    The first part has the fewest and, from two or three seeds, may come out far too small, which would hand the sum the
    many degrees of the others. So its upper bound (CAUTION) counts where the parts are weighed.
    """
    import scipy.special

    (first, df), *others = parts
    if not others or first == 0:
        return df
    weighed = [(first * df / float(scipy.special.chdtri(df, CAUTION)), df), *others]
    return sum(part for part, _ in weighed) ** 2 / sum(part**2 / each for part, each in weighed)


def _difference(a: Row, b: Row) -> float:
    return statistics.fmean(a.values()) - statistics.fmean(b.values())
