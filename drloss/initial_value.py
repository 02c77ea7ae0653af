"""Each built-in loss before training, where every score equals the prior probability p, in closed form.

A function takes the loss's config, p in 0..1 and the counts of each group of images in the first batch. It returns the
mean over the groups, or None where noise decides the value: the worst-case pair and mined negatives are maxima.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import torch

from drloss.config import (
    CrossEntropyConfig,
    DRLossConfig,
    FocalLossConfig,
    GroupCounts,
    HardNegativePrior,
    Hinge,
    Quadratic,
)
from drloss.surrogates import hinge, logistic, quadratic


def ranking_value(config: DRLossConfig, prior: float, counts: Sequence[GroupCounts]) -> float | None:
    """Mean over the ranked sets of tau l(margin), or tau l(prior - 1 + margin) where a set has no positive (Eq. 9)."""
    if config.pairing == "worst_case" or isinstance(config.prior, HardNegativePrior):
        return None
    of_batch = config.scope == "batch"
    sets = [[any(group.positives)] if of_batch else [count > 0 for count in group.positives] for group in counts]
    z = torch.tensor(
        [config.margin if found else prior - 1 + config.margin for group in sets for found in group],
        dtype=torch.float64,
    )
    if isinstance(config.surrogate, Hinge):
        values = hinge(z)
    elif isinstance(config.surrogate, Quadratic):
        values = quadratic(z, config.surrogate.rho)
    else:
        values = logistic(z, config.surrogate.L)
    return config.tau * float(values.mean())


def focal_value(config: FocalLossConfig, prior: float, counts: Sequence[GroupCounts]) -> float:
    """Sum over the entries divided by the normaliser, as ``functional.focal_loss``."""
    return fmean(_focal(config, prior, group) for group in counts)


def cross_entropy_value(config: CrossEntropyConfig, prior: float, counts: Sequence[GroupCounts]) -> float | None:
    """As the focal loss with gamma 0 and both weights 1, which is twice alpha = 1/2."""
    if config.mining != "none":
        return None
    plain = FocalLossConfig(alpha=0.5, gamma=0.0)
    return fmean(2 * _focal(plain, prior, group) for group in counts)


def _focal(config: FocalLossConfig, p: float, group: GroupCounts) -> float:
    positive = group.num_positive * config.alpha * math.pow(1 - p, config.gamma) * -math.log(p)
    negative = group.num_negative * (1 - config.alpha) * math.pow(p, config.gamma) * -math.log1p(-p)
    if config.normalizer == "positives":
        return (positive + negative) / max(1, group.num_positive)
    return (positive + negative) / (group.num_positive + len(group.positives))
