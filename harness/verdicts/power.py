"""How likely a number of seeds per row is to decide a claim, if the paper's own difference is the truth.

The tests are those of ``judge``: one-sided t at 5%, against Holm's first (hardest) step over every claim of
the profile, at the same seeds, with the deviations of all rows that the plan runs in a family. Where a claim has
several tests, all must succeed, and the power is the lower bound 1 - sum (1 - power of each), however they depend on
each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from harness.verdicts.estimates import t_quantile


@dataclass(frozen=True)
class Line:
    """An evaluation of a training. Rows that are the same run are one line.

    ``training``: lines of the same training use the same weights. ``pool``: lines of the same pool (a family of rows)
    share a seed deviation; None for a row that is expected to collapse, whose deviation is its own.
    """

    refs: tuple[str, ...]
    training: str
    pool: str | None


@dataclass(frozen=True)
class Test:
    """Of two lines: their true difference is ``distances`` away from each bound that must be rejected.

    ``sd``: between the seeds of one line. ``share``: the part of its square that both have in common at the same seed;
    0, the safe side, where it was not measured.
    """

    __test__ = False  # not a test case for pytest

    a: Line
    b: Line
    distances: tuple[float, ...]
    sd: float
    share: float = 0.0


@dataclass(frozen=True)
class Wanted:
    """A claim that seeds can decide: by its tests or, where a row collapses, by the ratio of one seed per row.

    Where both rows have two seeds already, a test takes the ratio's place; a collapse is assumed to pass it.
    """

    id: str
    tests: tuple[Test, ...]
    by_ratio: bool = False

    @property
    def lines(self) -> tuple[Line, ...]:
        """Each once."""
        return tuple(dict.fromkeys(line for test in self.tests for line in (test.a, test.b)))


Seeds = Mapping[Line, int]


@dataclass(frozen=True)
class Degrees:
    """Of a pool: its rows, their seeds beyond the first, and the same once each seed's own level is taken out."""

    rows: int
    within: int
    residual: int


def degrees_of_freedom(seeds: Seeds) -> dict[str, Degrees]:
    """By pool; two lines on the same weights are one sample. Lines have the seeds 0, 1, ..."""
    runs: dict[tuple[str, str], int] = {}
    for line, count in seeds.items():
        if line.pool is not None:
            key = (line.pool, line.training)
            runs[key] = max(runs.get(key, 0), count)
    counts: dict[str, list[int]] = {}
    for (pool, _), count in runs.items():
        counts.setdefault(pool, []).append(count)
    degrees = {}
    for pool, of_pool in counts.items():
        within = sum(max(0, count - 1) for count in of_pool)
        degrees[pool] = Degrees(len(of_pool), within, within - max(0, max(of_pool) - 1))
    return degrees


def claim_power(wanted: Wanted, seeds: Seeds, degrees: Mapping[str, Degrees], alpha: float) -> float:
    """Probability, at least, of a verdict for the claim. ``degrees``: those of ``seeds``."""
    if wanted.by_ratio:
        return float(all(seeds.get(line, 0) >= 1 for line in wanted.lines))
    return max(0.0, 1.0 - sum(1.0 - power_of(test, seeds, degrees, alpha) for test in wanted.tests))


def power_of(test: Test, seeds: Seeds, degrees: Mapping[str, Degrees], alpha: float) -> float:
    """The same of one test; 0 where a row has less than two seeds.

    Two tests of the same weights are compared seed by seed, so both need the same seeds. How much such differences
    scatter is unknown before they are measured. The deviation of independent runs is an upper bound, since good weights
    are good in both tests.
    """
    a, b = seeds.get(test.a, 0), seeds.get(test.b, 0)
    paired = test.a.training == test.b.training
    if min(a, b) < 2 or (paired and a != b):
        return 0.0
    variance = test.sd**2 * (1 / a + 1 / b)
    df: float = min(a, b) - 1  # of pairs, of two families, and of Welch's test: at least
    if not paired and test.a.pool is not None and test.a.pool == test.b.pool:
        variance, df = _in_one_family(test, a, b, degrees[test.a.pool])
    elif not paired and a == b:
        variance *= 1 - test.share
    error = math.sqrt(variance)
    return 1.0 - sum(1.0 - _one_sided(distance / error, df, alpha) for distance in test.distances)


def _in_one_family(test: Test, a: int, b: int, degrees: Degrees) -> tuple[float, float]:
    """Variance of the difference of ``a`` and ``b`` seeds and its degrees of freedom, as ``within_family`` has them."""
    common = 2 * min(a, b) / (a * b)
    residual = test.sd**2 * (1 - test.share) * common
    total = test.sd**2 * (1 / a + 1 / b - common)
    of_total = degrees.within / (1 + (degrees.rows - 1) * test.share**2)
    if a == b or degrees.residual == 0:
        return residual + total, degrees.residual or of_total
    return residual + total, (residual + total) ** 2 / (residual**2 / degrees.residual + total**2 / of_total)


@cache
def _one_sided(noncentrality: float, df: float, alpha: float) -> float:
    import scipy.special

    return 1.0 - float(scipy.special.nctdtr(df, noncentrality, t_quantile(1 - alpha, df)))
