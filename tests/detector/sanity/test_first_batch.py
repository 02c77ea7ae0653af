"""The expected first DR loss, and the stop where it is far off."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from detector.build import build_model
from detector.data.loader import Group
from detector.errors import TrainingError
from detector.model.retinanet import RetinaNet
from detector.runs.assignment import AnchorRanges
from detector.runs.job import EvalJob
from detector.sanity.first_batch import (
    FirstLook,
    check_anchors,
    check_first_loss,
    check_scores,
    expected_first_loss,
    look_at,
)
from drloss.config import (
    CrossEntropyConfig,
    DRLossConfig,
    FocalLossConfig,
    HardNegativePrior,
    Hinge,
    Logistic,
    Quadratic,
)
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve
from support.micro import ALONE

WITH_BOXES = 4 * math.log(1 + math.exp(6 * 0.5)) / 6  # 2.032
WITHOUT = 4 * math.log(2) / 6  # 0.462


def group_of(*positives: int, mean_score: float = 0.5, borderline: int = 3, num_negative: int = 1000) -> FirstLook:
    """A group of one image for each number of positive anchors."""
    return FirstLook(mean_score, positives, (borderline,) * len(positives), sum(positives), num_negative)


def test_expected_first_loss_at_the_papers_defaults() -> None:
    assert expected_first_loss(DRLossConfig(), 0.5, [group_of(5, 2)]) == pytest.approx(WITH_BOXES, rel=1e-5)
    assert expected_first_loss(DRLossConfig(), 0.5, [group_of(0)]) == pytest.approx(WITHOUT, rel=1e-5)
    mixed = expected_first_loss(DRLossConfig(), 0.5, [group_of(5, 0)])
    assert mixed == pytest.approx((WITH_BOXES + WITHOUT) / 2, rel=1e-5)


def test_expected_first_loss_follows_surrogate_margin_prior_and_scope() -> None:
    assert expected_first_loss(DRLossConfig(surrogate=Hinge()), 0.5, [group_of(5)]) == pytest.approx(4 * 0.5)
    quadratic = DRLossConfig(surrogate=Quadratic(rho=0.5), margin=0.25)
    assert expected_first_loss(quadratic, 0.5, [group_of(5)]) == pytest.approx(4 * (0.25 + 0.5) ** 2 / (4 * 0.5))
    low_prior = 4 * math.log(1 + math.exp(10 * (0.01 - 0.5))) / 10
    assert expected_first_loss(DRLossConfig(surrogate=Logistic(L=10)), 0.01, [group_of(0)]) == pytest.approx(
        low_prior, rel=1e-4
    )
    one_set = expected_first_loss(DRLossConfig(scope="batch"), 0.5, [group_of(5, 0)])
    assert one_set == pytest.approx(WITH_BOXES, rel=1e-5)


def test_expected_first_loss_ranks_over_each_group_of_its_own_in_batch_scope() -> None:
    found = expected_first_loss(DRLossConfig(scope="batch"), 0.5, [group_of(5, 0), group_of(0, 0)])
    assert found == pytest.approx((WITH_BOXES + WITHOUT) / 2, rel=1e-5)


def test_expected_first_focal_loss_is_the_sum_over_entries_by_its_normaliser() -> None:
    positive, negative = 0.25 * 0.99**2 * -math.log(0.01), 0.75 * 0.01**2 * -math.log(0.99)
    total = 7 * positive + 1000 * negative
    assert expected_first_loss(FocalLossConfig(), 0.01, [group_of(5, 2)]) == pytest.approx(total / (7 + 2))
    alone = FocalLossConfig(normalizer="positives")
    assert expected_first_loss(alone, 0.01, [group_of(5, 2)]) == pytest.approx(total / 7)
    assert expected_first_loss(alone, 0.01, [group_of(0)]) == pytest.approx(1000 * negative)


def test_expected_first_cross_entropy_is_that_of_the_prior() -> None:
    found = expected_first_loss(CrossEntropyConfig(), 0.2, [group_of(5, 2)])
    assert found == pytest.approx((7 * -math.log(0.2) + 1000 * -math.log(0.8)) / 9)


def test_expected_first_loss_is_none_where_it_is_not_sharp() -> None:
    assert expected_first_loss(CrossEntropyConfig(mining="hard_negative"), 0.01, [group_of(5)]) is None
    assert expected_first_loss(DRLossConfig(pairing="worst_case"), 0.5, [group_of(5)]) is None
    assert expected_first_loss(DRLossConfig(prior=HardNegativePrior()), 0.5, [group_of(5)]) is None


@pytest.mark.parametrize("ratio", [0.71, 1.0, 1.39])
def test_check_first_loss_accepts_what_noise_explains(ratio: float) -> None:
    check_first_loss(2.032 * ratio, 2.032)


@pytest.mark.parametrize("value", [0.0005, 2.032 * 0.69, 2.032 * 1.41, math.nan])
def test_check_first_loss_stops_and_explains(value: float) -> None:
    with pytest.raises(TrainingError, match="divided by the number of positives"):
        check_first_loss(value, 2.032)


@pytest.mark.parametrize(("score", "prior"), [(0.011, 0.01), (0.52, 0.5), (0.45, 0.5)])
def test_check_scores_accepts_what_noise_explains(score: float, prior: float) -> None:
    check_scores([group_of(1, mean_score=score)], prior)


@pytest.mark.parametrize(("score", "prior"), [(0.5, 0.01), (0.01, 0.5), (0.02, 0.01), (math.nan, 0.5)])
def test_check_scores_stops_where_the_prior_was_not_set(score: float, prior: float) -> None:
    with pytest.raises(TrainingError, match="must be near the prior probability"):
        check_scores([group_of(1, mean_score=score)], prior)


def test_check_anchors_takes_the_mean_over_the_images_of_all_groups() -> None:
    ranges = AnchorRanges(positives=(4, 8), borderline=(2, 4))
    check_anchors([group_of(1, 1), group_of(11, 11)], ranges, ALONE)
    with pytest.raises(TrainingError, match=r"^1\.0 anchors an image are positive in the first batch; .* 4 to 8"):
        check_anchors([group_of(1, 1)], ranges, ALONE)
    with pytest.raises(TrainingError, match="0.0 anchors an image are between IoU 0.4 and positive"):
        check_anchors([group_of(6, borderline=0)], ranges, ALONE)


def new_model(job: EvalJob) -> RetinaNet:
    torch.manual_seed(0)
    return build_model(job.train, num_classes=3, test=job.test)


def one_group(boxes: Tensor) -> Group:
    pixels = torch.randint(0, 256, (3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.zeros(len(boxes), dtype=torch.int64)
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    return Group([pixels, pixels], [{"boxes": boxes, "labels": labels}, empty])


BOX = torch.tensor([[8.0, 8.0, 39.0, 39.0]])


def test_look_at_counts_as_the_losses_do_and_leaves_the_model_alone(job: EvalJob) -> None:
    model = new_model(job)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    look = look_at(model, one_group(BOX))
    assert look.positives[0] > 0
    assert look.positives[1] == look.borderline[1] == 0
    assert look.borderline[0] > 0
    anchors = sum(level.shape[0] for level in model.head_outputs([torch.zeros(3, 64, 64)])[2])
    assert look.num_positive == look.positives[0]
    assert look.num_positive + look.num_negative == 2 * anchors * 3  # no anchor is ignored at background IoU 0.5
    assert look.mean_score == pytest.approx(0.5, abs=0.05)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("ref", ["table2/L6", "table2/focal", "table3/all", "ablations/cross-entropy"])
def test_the_first_loss_of_a_new_model_is_as_expected(ref: str, job: EvalJob) -> None:
    registry = Registry()
    train = eval_job(resolve(registry, ref, registry.profile("tiny")), 0).train
    torch.manual_seed(0)
    model = build_model(train, num_classes=3, test=job.test)
    group = one_group(BOX)
    look = look_at(model, group)
    expected = expected_first_loss(train.loss, train.model.prior_probability, [look])
    assert expected is not None
    loss = float(model(group.images, group.targets)["classification"].detach())
    check_first_loss(loss, expected)
    check_scores([look], train.model.prior_probability)
    assert loss == pytest.approx(expected, rel=0.25)


def test_look_at_sees_boxes_in_the_wrong_unit_and_a_forgotten_prior(job: EvalJob) -> None:
    right, wrong = look_at(new_model(job), one_group(BOX)), look_at(new_model(job), one_group(BOX / 64))
    ranges = AnchorRanges(positives=(right.positives[0] / 4, right.positives[0]), borderline=(0, 1000))
    check_anchors([right], ranges, ALONE)
    with pytest.raises(TrainingError, match="anchors an image are positive"):
        check_anchors([wrong], ranges, ALONE)
    model = new_model(job)
    bias = model.head.classification_head["cls_logits"].bias
    assert isinstance(bias, Tensor)
    nn.init.constant_(bias, -math.log(99))
    with pytest.raises(TrainingError, match=r"The mean score before the first step is 0\.00998"):
        check_scores([look_at(model, one_group(BOX))], 0.5)
