"""The test set's own noise: how far AP would move had the images been others of the same kind. A bootstrap over images.

Each resample draws as many images as there are, with replacement. Two evaluations of the same images get the same
draws, so that what both find hard cancels in their difference. The seeds' noise is another: it is not in here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.registry.declarations import METRICS

if TYPE_CHECKING:
    from detector.evaluation.matches import Matches

RESAMPLES = 200  # of which a deviation is known to 5%
SEED = 0  # of the draws: the same command prints the same numbers

Draws = Any  # [resamples, 6] in percent, NaN where a resample holds no object of a size


def same_images(evaluations: Sequence[Matches]) -> bool:
    """Whether all are of the same images."""
    import numpy as np

    return all(np.array_equal(matches.image_ids, evaluations[0].image_ids) for matches in evaluations[1:])


def resampled(evaluations: Sequence[Matches], *, resamples: int = RESAMPLES) -> list[Draws]:
    """For each evaluation, its six AP in each resample of the images that all of them have.

    Raises ValueError where they are of different images.
    """
    import numpy as np

    from detector.evaluation.reweighted import reweighted_ap

    if not same_images(evaluations):
        raise ValueError("evaluations of different images have no common resample")
    num_images = len(evaluations[0].image_ids)
    weights = np.random.default_rng(SEED).multinomial(num_images, np.full(num_images, 1 / num_images), resamples)
    return [reweighted_ap(matches, weights) for matches in evaluations]


def standard_errors(draws: Draws) -> dict[str, float | None]:
    """By metric, the deviation over the resamples (AP points); None where fewer than two hold such an object."""
    import numpy as np

    known = [column[~np.isnan(column)] for column in draws.T]
    return {
        name: float(values.std(ddof=1)) if len(values) > 1 else None
        for name, values in zip(METRICS, known, strict=True)
    }


def mean_of(draws: Sequence[Draws]) -> Draws:
    """The resamples of the mean of a row's seeds."""
    import numpy as np

    return np.mean(np.stack(draws), axis=0)
