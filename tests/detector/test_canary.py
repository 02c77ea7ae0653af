"""The expected first DR loss, and the stop where it is far off."""

from __future__ import annotations

import math

import pytest

from detector.canary import check_first_loss, expected_first_loss
from detector.errors import TrainingError
from drloss.config import DRLossConfig, FocalLossConfig, Hinge, Logistic, Quadratic

WITH_BOXES = 4 * math.log(1 + math.exp(6 * 0.5)) / 6  # 2.032
WITHOUT = 4 * math.log(2) / 6  # 0.462


def test_expected_first_loss_at_the_papers_defaults() -> None:
    assert expected_first_loss(DRLossConfig(), 0.5, [True, True]) == pytest.approx(WITH_BOXES, rel=1e-5)
    assert expected_first_loss(DRLossConfig(), 0.5, [False]) == pytest.approx(WITHOUT, rel=1e-5)
    mixed = expected_first_loss(DRLossConfig(), 0.5, [True, False])
    assert mixed == pytest.approx((WITH_BOXES + WITHOUT) / 2, rel=1e-5)


def test_expected_first_loss_follows_surrogate_margin_prior_and_scope() -> None:
    assert expected_first_loss(DRLossConfig(surrogate=Hinge()), 0.5, [True]) == pytest.approx(4 * 0.5)
    quadratic = DRLossConfig(surrogate=Quadratic(rho=0.5), margin=0.25)
    assert expected_first_loss(quadratic, 0.5, [True]) == pytest.approx(4 * (0.25 + 0.5) ** 2 / (4 * 0.5))
    low_prior = 4 * math.log(1 + math.exp(10 * (0.01 - 0.5))) / 10
    assert expected_first_loss(DRLossConfig(surrogate=Logistic(L=10)), 0.01, [False]) == pytest.approx(
        low_prior, rel=1e-4
    )
    one_set = expected_first_loss(DRLossConfig(scope="batch"), 0.5, [True, False])
    assert one_set == pytest.approx(WITH_BOXES, rel=1e-5)


def test_expected_first_loss_is_none_where_it_is_not_sharp() -> None:
    assert expected_first_loss(FocalLossConfig(), 0.01, [True]) is None
    assert expected_first_loss(DRLossConfig(pairing="worst_case"), 0.5, [True]) is None


@pytest.mark.parametrize("ratio", [0.71, 1.0, 1.39])
def test_check_first_loss_accepts_what_noise_explains(ratio: float) -> None:
    check_first_loss(2.032 * ratio, 2.032)


@pytest.mark.parametrize("value", [0.0005, 2.032 * 0.69, 2.032 * 1.41, math.nan])
def test_check_first_loss_stops_and_explains(value: float) -> None:
    with pytest.raises(TrainingError, match="divided by the number of positives"):
        check_first_loss(value, 2.032)
