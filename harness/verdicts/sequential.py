"""Looking at the results after 2, 3 and 5 seeds without a false verdict in more than 5%: alpha spent look by look.

Whoever adds a seed until a verdict comes, tests again and again, and is wrong more often than each test says. With the
looks named beforehand, each gets a smaller level, so that all together keep the whole one: a group-sequential test with
Lan and DeMets' (1983) spending function of Pocock's (1977) kind. It allows a verdict at the first look already.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

from detector.errors import UsageError

MOST_LOOKS = 20
# The levels are those of normal means. With the few degrees of freedom of two to five seeds t-tests reject a little
# more often (5.8% in simulations of two rows), so this part of alpha is spent.
PART_SPENT = 0.85
_POINTS = 1001  # of the grid; more change a level by less than 1e-6 of it
_REACH = 9.0  # deviations below 0 at which the grid begins: the tail beyond is 1e-19


def parse_looks(text: str) -> tuple[int, ...]:
    """``2,3,5`` as numbers of seeds. Raises UsageError unless they are 2 or more and rise."""
    try:
        looks = tuple(int(part) for part in text.split(","))
    except ValueError:
        looks = ()
    if not 1 <= len(looks) <= MOST_LOOKS or looks[0] < 2 or any(b <= a for a, b in pairwise(looks)):
        raise UsageError(
            f"--looks takes the numbers of seeds per row at which you decided to look, such as 2,3,5: from 2 on, "
            f"rising, at most {MOST_LOOKS}; got {text!r}."
        )
    return looks


def spent(part: float, alpha: float) -> float:
    """Alpha that is spent at a part (0 to 1) of all seeds: alpha log(1 + (e - 1) part)."""
    return alpha * math.log1p((math.e - 1) * part)


@cache
def nominal_levels(looks: tuple[int, ...], alpha: float) -> tuple[float, ...]:
    """By look, the one-sided p-value below which a test rejects, so that under H0 all looks together do with ``alpha``.

    By recursion over the looks (Armitage, McPherson and Rowe, 1969): the density of the sum so far, for those that did
    not reject, on a grid. The levels are exact for normal means; for t-tests p-values take their place (Pocock, 1977).
    """
    import numpy as np
    from scipy.special import ndtr

    levels: list[float] = []
    sums, density = np.zeros(1), np.ones(1)  # before the first look the sum is 0
    before, gone = 0, 0.0
    for n in looks:
        step = math.sqrt(n - before)
        target = spent(n / looks[-1], alpha) - gone
        bound = _bound(sums, density, step, target, math.sqrt(n))
        levels.append(float(ndtr(-bound / math.sqrt(n))))
        grid = np.linspace(-_REACH * math.sqrt(n), bound, _POINTS)
        arrived = np.exp(-0.5 * ((grid[:, None] - sums[None, :]) / step) ** 2) / (step * math.sqrt(2 * math.pi))
        weights = np.full(_POINTS, grid[1] - grid[0])
        weights[[0, -1]] /= 2
        sums, density = grid, (arrived @ density) * weights
        before, gone = n, gone + target
    return tuple(levels)


def _bound(sums: Any, density: Any, step: float, target: float, scale: float) -> float:
    """The sum that is exceeded with probability ``target``, by bisection."""
    from scipy.special import ndtr

    low, high = 0.0, 40.0 * scale
    for _ in range(80):
        middle = (low + high) / 2
        if float(density @ ndtr((sums - middle) / step)) > target:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def overall(p_value: float, looks: Sequence[int], n: int, alpha: float) -> float:
    """The p-value of a look at ``n`` seeds, scaled so that it is below ``alpha`` where the look rejects."""
    return min(1.0, p_value * alpha / levels_of_looks(looks, alpha)[list(looks).index(n)])


def levels_of_looks(looks: Sequence[int], alpha: float) -> tuple[float, ...]:
    """By look, the level that its t-test is held to, of ``alpha`` in all."""
    return nominal_levels(tuple(looks), PART_SPENT * alpha)
