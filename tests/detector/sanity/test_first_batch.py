"""A fresh training on its first batch: what is counted, and the stop where it cannot be right."""

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
from drloss.config import DRLossConfig, GroupCounts
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve
from support.micro import ALONE


def group_of(*positives: int, mean_score: float = 0.5, borderline: int = 3, num_negative: int = 1000) -> FirstLook:
    """A group of one image for each number of positive anchors."""
    counts = GroupCounts(positives, sum(positives), num_negative)
    return FirstLook(mean_score, counts, (borderline,) * len(positives))


def test_expected_first_loss_is_the_mean_over_the_groups() -> None:
    one, other = (expected_first_loss(DRLossConfig(), 0.5, [group_of(*images)]) for images in ((5, 2), (0, 0)))
    assert one is not None
    assert other is not None
    both = expected_first_loss(DRLossConfig(), 0.5, [group_of(5, 2), group_of(0, 0)])
    assert both == pytest.approx((one + other) / 2)


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


def test_check_anchors_measures_the_sets_own_ranges_where_the_profiles_do_not_hold() -> None:
    profile, measured = (
        AnchorRanges(positives=(4, 8), borderline=(2, 4)),
        AnchorRanges(positives=(1, 3), borderline=(2, 4)),
    )
    asked: list[AnchorRanges] = []

    def own() -> AnchorRanges:
        asked.append(measured)
        return measured

    check_anchors([group_of(6, 6)], profile, ALONE, own)
    assert not asked
    check_anchors([group_of(2, 2)], profile, ALONE, own)
    assert asked == [measured]
    with pytest.raises(TrainingError, match=r"20\.0 anchors per image are positive; on this data 1 to 3 are"):
        check_anchors([group_of(20, 20)], profile, ALONE, own)
    with pytest.raises(TrainingError, match="on this data 4 to 8 are"):
        check_anchors([group_of(2, 2)], profile, ALONE, lambda: None)


def test_check_anchors_takes_the_mean_over_the_images_of_all_groups() -> None:
    ranges = AnchorRanges(positives=(4, 8), borderline=(2, 4))
    check_anchors([group_of(1, 1), group_of(11, 11)], ranges, ALONE)
    with pytest.raises(TrainingError, match=r"^In the first batch 1\.0 anchors per image are positive; .* 4 to 8"):
        check_anchors([group_of(1, 1)], ranges, ALONE)
    with pytest.raises(TrainingError, match="0.0 anchors per image are between IoU 0.4 and positive"):
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
    assert look.counts.positives[0] > 0
    assert look.counts.positives[1] == look.borderline[1] == 0
    assert look.borderline[0] > 0
    anchors = sum(level.shape[0] for level in model.head_outputs([torch.zeros(3, 64, 64)])[2])
    assert look.counts.num_positive == look.counts.positives[0]
    assert (
        look.counts.num_positive + look.counts.num_negative == 2 * anchors * 3
    )  # no anchor is ignored at background IoU 0.5
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
    ranges = AnchorRanges(positives=(right.counts.positives[0] / 4, right.counts.positives[0]), borderline=(0, 1000))
    check_anchors([right], ranges, ALONE)
    with pytest.raises(TrainingError, match="anchors per image are positive"):
        check_anchors([wrong], ranges, ALONE)
    model = new_model(job)
    bias = model.head.classification_head["cls_logits"].bias
    assert isinstance(bias, Tensor)
    nn.init.constant_(bias, -math.log(99))
    with pytest.raises(TrainingError, match=r"The mean score before the first step is 0\.00998"):
        check_scores([look_at(model, one_group(BOX))], 0.5)
