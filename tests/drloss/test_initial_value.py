"""The losses before training: closed forms, and the losses themselves where every score is the prior."""

from __future__ import annotations

import math

import pytest
import torch
from msgspec import Struct

from drloss import BACKGROUND, IGNORED, build_loss
from drloss.config import (
    CrossEntropyConfig,
    DRLossConfig,
    FocalLossConfig,
    GroupCounts,
    HardNegativePrior,
    Hinge,
    Logistic,
    Quadratic,
)
from drloss.registry import BUILT_IN, initial_value

WITH_BOXES = 4 * math.log(1 + math.exp(6 * 0.5)) / 6  # 2.032
WITHOUT = 4 * math.log(2) / 6  # 0.462


def counts(*positives: int, num_negative: int = 1000) -> GroupCounts:
    """A group of one image for each number of positive anchors."""
    return GroupCounts(positives, sum(positives), num_negative)


def test_initial_value_at_the_papers_defaults() -> None:
    assert initial_value(DRLossConfig(), 0.5, [counts(5, 2)]) == pytest.approx(WITH_BOXES, rel=1e-5)
    assert initial_value(DRLossConfig(), 0.5, [counts(0)]) == pytest.approx(WITHOUT, rel=1e-5)
    mixed = initial_value(DRLossConfig(), 0.5, [counts(5, 0)])
    assert mixed == pytest.approx((WITH_BOXES + WITHOUT) / 2, rel=1e-5)


def test_initial_value_follows_surrogate_margin_prior_and_scope() -> None:
    assert initial_value(DRLossConfig(surrogate=Hinge()), 0.5, [counts(5)]) == pytest.approx(4 * 0.5)
    quadratic = DRLossConfig(surrogate=Quadratic(rho=0.5), margin=0.25)
    assert initial_value(quadratic, 0.5, [counts(5)]) == pytest.approx(4 * (0.25 + 0.5) ** 2 / (4 * 0.5))
    low_prior = 4 * math.log(1 + math.exp(10 * (0.01 - 0.5))) / 10
    assert initial_value(DRLossConfig(surrogate=Logistic(L=10)), 0.01, [counts(0)]) == pytest.approx(
        low_prior, rel=1e-4
    )
    one_set = initial_value(DRLossConfig(scope="batch"), 0.5, [counts(5, 0)])
    assert one_set == pytest.approx(WITH_BOXES, rel=1e-5)


def test_initial_value_ranks_over_each_group_of_its_own_in_batch_scope() -> None:
    found = initial_value(DRLossConfig(scope="batch"), 0.5, [counts(5, 0), counts(0, 0)])
    assert found == pytest.approx((WITH_BOXES + WITHOUT) / 2, rel=1e-5)


def test_initial_focal_loss_is_the_sum_over_entries_by_its_normaliser() -> None:
    positive, negative = 0.25 * 0.99**2 * -math.log(0.01), 0.75 * 0.01**2 * -math.log(0.99)
    total = 7 * positive + 1000 * negative
    assert initial_value(FocalLossConfig(), 0.01, [counts(5, 2)]) == pytest.approx(total / (7 + 2))
    alone = FocalLossConfig(normalizer="positives")
    assert initial_value(alone, 0.01, [counts(5, 2)]) == pytest.approx(total / 7)
    assert initial_value(alone, 0.01, [counts(0)]) == pytest.approx(1000 * negative)


def test_initial_cross_entropy_is_that_of_the_prior() -> None:
    found = initial_value(CrossEntropyConfig(), 0.2, [counts(5, 2)])
    assert found == pytest.approx((7 * -math.log(0.2) + 1000 * -math.log(0.8)) / 9)


def test_initial_value_is_none_where_it_is_not_sharp() -> None:
    assert initial_value(CrossEntropyConfig(mining="hard_negative"), 0.01, [counts(5)]) is None
    assert initial_value(DRLossConfig(pairing="worst_case"), 0.5, [counts(5)]) is None
    assert initial_value(DRLossConfig(prior=HardNegativePrior()), 0.5, [counts(5)]) is None


@pytest.mark.parametrize(
    "config",
    [
        *(spec.config() for spec in BUILT_IN),
        DRLossConfig(surrogate=Quadratic(rho=0.2), pairing="neg_only"),
        DRLossConfig(surrogate=Hinge(), pairing="all", scope="batch"),
        FocalLossConfig(normalizer="positives"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("prior", [0.5, 0.01])
def test_initial_value_is_the_loss_where_every_score_is_the_prior(config: Struct, prior: float) -> None:
    labels = torch.tensor([[0, 2, BACKGROUND, IGNORED], [BACKGROUND] * 3 + [1], [BACKGROUND] * 4])
    logits = torch.full((3, 4, 3), math.log(prior / (1 - prior)))
    groups = [GroupCounts((2, 1), 3, 7 * 3 - 3), GroupCounts((0,), 0, 4 * 3)]
    found = build_loss(config)(logits, labels, images_per_group=2)
    assert float(found) == pytest.approx(initial_value(config, prior, groups), rel=1e-5)
