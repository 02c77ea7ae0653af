"""The statistics behind every verdict, as pure functions of numbers.

A cell compares the mean of n seeds with one published number; a claim compares our own rows with each other. Units are
those of the inputs: AP points (0..100) for the six box metrics, 0..1 for scores. Only ``scipy.special`` is used:
``scipy.stats`` has the same distributions, but takes a second to import, at every ``harness table``.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

ALPHA = 0.05
POWER = 0.80
ROUNDING = 0.1  # the paper prints one decimal
# Nobody knows an assumed deviation better: a verdict must hold from a half of it to twice.
ASSUMED_FACTOR = 2.0
# Rows of one pool once Tables 1 to 3 have run: 15 different trainings, without the one that collapses.
POOLED_ROWS = 14

CellOutcome = Literal["reproduced", "not reproduced", "consistent", "inconclusive"]


@dataclass(frozen=True)
class Spread:
    """A seed deviation ``sd``, its degrees of freedom (infinite where it is assumed) and the rows behind it.

    ``borrowed``: it is that of rows with another loss or other settings. ``share``: the part of the variance that is
    the seed's, common to rows of the same seed (0 to 1); None where it is unknown.
    """

    sd: float
    df: float
    num_rows: int
    assumed: bool = False
    borrowed: bool = False
    share: float | None = None

    @property
    def interval(self) -> tuple[float, float]:
        """An assumed deviation stands for half of it to twice; a measured one for itself, and ``df`` says the rest."""
        return (self.sd / ASSUMED_FACTOR, self.sd * ASSUMED_FACTOR) if self.assumed else (self.sd, self.sd)


@dataclass(frozen=True)
class Estimate:
    """A difference with its standard error and the degrees of freedom of that error."""

    value: float
    standard_error: float
    df: float

    def half_width(self, confidence: float = 1 - ALPHA) -> float:
        """Half of the two-sided confidence interval, in the units of ``value``."""
        return t_quantile(0.5 + confidence / 2, self.df) * self.standard_error

    def p_above(self, bound: float = 0.0) -> float:
        """One-sided p-value of "the truth is above ``bound``" against H0 "at most ``bound``"."""
        return _upper_tail(self.value - bound, self.standard_error, self.df)

    def p_below(self, bound: float = 0.0) -> float:
        """One-sided p-value of "the truth is below ``bound``" against H0 "at least ``bound``"."""
        return _upper_tail(bound - self.value, self.standard_error, self.df)


def t_quantile(q: float, df: float) -> float:
    """Quantile of Student's t; of the normal where ``df`` is infinite."""
    special = _special()
    return float(special.ndtri(q)) if math.isinf(df) else float(special.stdtrit(df, q))


def _upper_tail(distance: float, standard_error: float, df: float) -> float:
    if standard_error == 0:  # identical runs: no information at a distance of 0, certainty at any other
        return 0.5 if distance == 0 else float(distance < 0)
    return float(_special().stdtr(df, -distance / standard_error))


def assumed_spread(sd: float) -> Spread:
    """A declared deviation for one seed everywhere: an interval around ``sd``; verdicts from it are provisional."""
    return Spread(sd=sd, df=math.inf, num_rows=POOLED_ROWS, assumed=True)


def standard_error(sd: float, n: int, rounding: float = ROUNDING) -> float:
    """Error of (mean of our n seeds - published): sqrt(sd^2 (1 + 1/n) + rounding^2 / 12).

    The 1 is the paper's own single run; a number rounded to ``rounding`` is uniform around its print.
    """
    return math.sqrt(sd**2 * (1 + 1 / n) + rounding**2 / 12)


def cell_outcome(difference: Estimate, delta: float, narrowest: Estimate | None = None) -> CellOutcome:
    """Equivalence first (two one-sided tests at 5%), then mere agreement (one two-sided test at 5%).

    reproduced: difference +- t(0.95) SE lies inside +-delta. not reproduced: wholly outside. consistent: |difference|
    is at most t(0.975) SE, so that chance explains it. inconclusive: none of these.

    narrowest: the same difference at the smallest error where that is known as an interval only, ``difference`` being
    at the largest: a verdict is given if it holds at both ends.
    """
    value = abs(difference.value)
    reach = difference.half_width(1 - 2 * ALPHA)
    if value + reach <= delta:
        return "reproduced"
    if value - reach > delta:
        return "not reproduced"
    return "consistent" if value <= (narrowest or difference).half_width() else "inconclusive"


def paired(a: Sequence[float], b: Sequence[float]) -> Estimate:
    """mean(a - b) where a[i] and b[i] come from one training (two tests of the same weights), two or more of them."""
    differences = [x - y for x, y in zip(a, b, strict=True)]
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return Estimate(statistics.fmean(differences), error, len(differences) - 1)


def welch(a: Sequence[float], b: Sequence[float], factor: float = 1.0) -> Estimate:
    """mean(a) - factor * mean(b), deviations unequal (Welch, 1947): two or more runs on each side."""
    parts = (statistics.variance(a) / len(a), factor**2 * statistics.variance(b) / len(b))
    total = sum(parts)
    weights = parts[0] ** 2 / (len(a) - 1) + parts[1] ** 2 / (len(b) - 1)
    df = total**2 / weights if weights > 0 else min(len(a), len(b)) - 1
    return Estimate(statistics.fmean(a) - factor * statistics.fmean(b), math.sqrt(total), df)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down (1979): p-values adjusted for the whole family, in the order given."""
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, running)
    return adjusted


def detection_power(
    effect: float, sd: float, n: int, *, alpha: float = ALPHA, arms: int = 2, num_rows: float = POOLED_ROWS
) -> float:
    """Power of the one-sided t-test on ``arms`` rows of n seeds, from the noncentral t.

    Noncentrality effect / (sd sqrt(arms / n)), degrees of freedom num_rows (n - 1): ``sd`` is pooled over ``num_rows``.
    At the same seeds: ``sd`` is that of the difference, arms 1, ``num_rows`` its degrees of freedom per seed.
    """
    df = max(arms, num_rows) * (n - 1)
    noncentrality = abs(effect) / (sd * math.sqrt(arms / n))
    return 1.0 - float(_special().nctdtr(df, noncentrality, t_quantile(1 - alpha, df)))


def seeds_needed(
    effect: float,
    sd: float,
    power: float = POWER,
    alpha: float = ALPHA,
    *,
    arms: int = 2,
    num_rows: float = POOLED_ROWS,
) -> int:
    """Seeds per arm (at least 2) that see ``effect`` with probability ``power``: 0.2 AP at sd 0.2 takes 13.

    ``arms``: 2 for two independent rows, 1 for a row against a threshold or for differences at the same seeds.

    Raises:
        ValueError: ``effect`` is 0 (no number of seeds would do) or ``sd`` is not positive.
    """
    if effect == 0 or sd <= 0:
        raise ValueError(f"effect must not be 0 and sd must be positive, got effect {effect} and sd {sd}")
    # The normal's answer is a lower bound of the t's, and close: a few steps from there.
    n = max(2, math.floor(arms * ((t_quantile(1 - alpha, math.inf) + t_quantile(power, math.inf)) * sd / effect) ** 2))
    while detection_power(effect, sd, n, alpha=alpha, arms=arms, num_rows=num_rows) < power:
        n += 1
    return n


def resolvable_effect(
    n: int,
    sd: float,
    power: float = POWER,
    alpha: float = ALPHA,
    *,
    arms: int = 2,
    num_rows: float = POOLED_ROWS,
) -> float:
    """The smallest difference that n seeds per arm see with probability ``power``: what a plan can hope to decide.

    Infinite with one seed, which has no deviation to measure a difference by.
    """
    if n < 2:
        return math.inf
    low, high = 0.0, sd
    while detection_power(high, sd, n, alpha=alpha, arms=arms, num_rows=num_rows) < power:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        if detection_power(middle, sd, n, alpha=alpha, arms=arms, num_rows=num_rows) < power:
            low = middle
        else:
            high = middle
    return high


def _special() -> Any:
    """scipy.special, imported when first needed: it costs 0.3 s, and tables at another scale need no quantile."""
    import scipy.special

    return scipy.special
