"""A fresh training is looked at before its first step, and stopped where it cannot be right.

At initialisation all scores are close to the prior probability; so the first loss is known in closed form (twice,
people left the focal loss's division by the number of positives in place and trained DR with a loss 4,000 times too
small), and boxes that are read or scaled wrongly match another number of anchors than the data set's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from msgspec.structs import replace

from detector.data.loader import Group
from detector.device.world import World
from detector.errors import TrainingError
from detector.model.assign import assign_anchors
from detector.model.retinanet import RetinaNet
from detector.runs.assignment import AnchorRanges
from drloss.config import (
    CrossEntropyConfig,
    DRLossConfig,
    FocalLossConfig,
    HardNegativePrior,
    Hinge,
    LossConfig,
    Quadratic,
)
from drloss.labels import BACKGROUND, IGNORED
from drloss.surrogates import hinge, logistic, quadratic

# Logits with a deviation of 0.3 already give a first DR loss of 2.29 for an expected 2.032, so no tighter.
LOWEST, HIGHEST = 0.7, 1.4
# Anchors of at least this IoU with a box, but no positives. Fixed, so that rows with another background IoU (0.5: no
# anchor is ignored) are held to the same range.
BORDERLINE_IOU = 0.4


@dataclass(frozen=True)
class FirstLook:
    """One group before the first step.

    ``mean_score``: of all its entries, 0..1. ``positives``, ``borderline``: anchors of each image. ``num_positive`` and
    ``num_negative``: (anchor, class) entries of the group that the loss counts.
    """

    mean_score: float
    positives: tuple[int, ...]
    borderline: tuple[int, ...]
    num_positive: int
    num_negative: int


@torch.no_grad()
def look_at(model: RetinaNet, group: Group) -> FirstLook:
    """One extra forward pass; the model is not changed."""
    cls_logits, _, levels = model.head_outputs(group.images)
    scores = torch.cat(cls_logits, dim=1).float().sigmoid()
    anchors = torch.cat(levels)
    device = anchors.device
    num_classes = scores.shape[-1]
    positives, borderline = [], []
    num_positive = num_negative = 0
    near = replace(model.matching, background_iou=min(BORDERLINE_IOU, model.matching.foreground_iou))
    for target in group.targets:
        boxes, labels = target["boxes"].to(device), target["labels"].to(device)
        assigned, _ = assign_anchors(anchors, boxes, labels, model.matching, model.box_convention)
        close, _ = assign_anchors(anchors, boxes, labels, near, model.box_convention)
        found = int((assigned >= 0).sum())
        positives.append(found)
        borderline.append(int((close == IGNORED).sum()))
        num_positive += found
        num_negative += int((assigned == BACKGROUND).sum()) * num_classes + found * (num_classes - 1)
    mean_score = float(scores.double().mean())
    return FirstLook(mean_score, tuple(positives), tuple(borderline), num_positive, num_negative)


def check_scores(looks: Sequence[FirstLook], prior_probability: float) -> None:
    """Raises TrainingError where the first scores are not near the prior: by their odds, which noise changes least."""
    mean = fmean(look.mean_score for look in looks)
    ratio = _odds(mean) / _odds(prior_probability)
    if not LOWEST <= ratio <= HIGHEST:
        raise TrainingError(
            f"The mean score before the first step is {mean:.4g}; it must be near the prior probability, "
            f"{prior_probability:g}. Usual causes: the classifier's bias does not match the prior; the inputs are not "
            "normalised as the weights expect (0..1 for 0..255, RGB for BGR), so that activations are too large."
        )


def check_anchors(looks: Sequence[FirstLook], ranges: AnchorRanges, world: World) -> None:
    """Raises TrainingError where the first batch's anchors an image are out of the data set's range.

    Every process gets the same answer: the means are over the images of all of them.
    """
    everyone = [look for shard in world.gather(list(looks)) for look in shard]
    for name, (low, high) in (("positives", ranges.positives), ("borderline", ranges.borderline)):
        mean = fmean(count for look in everyone for count in getattr(look, name))
        if not low <= mean <= high:
            meaning = "positive" if name == "positives" else f"between IoU {BORDERLINE_IOU} and positive"
            raise TrainingError(
                f"{mean:.1f} anchors an image are {meaning} in the first batch; on this data {low:g} to {high:g} are. "
                "Usual causes: boxes read as (x, y, w, h) instead of corners, or in 0..1 instead of pixels; boxes not "
                "scaled with the image; anchors of other sizes or strides. Look at some: harness data verify, and "
                "harness explain for the anchors. If the data are meant to be so, this is another experiment: --set "
                "switches the check off."
            )


def expected_first_loss(loss: LossConfig, prior_probability: float, looks: Sequence[FirstLook]) -> float | None:
    """What the classification loss is where every score equals the prior: the mean over the groups.

    DR and its pairings: the mean over images of tau l(margin), or tau l(prior - 1 + margin) without positives. Focal
    loss and cross entropy: the sum over entries, by its normaliser. None where it has no sharp value: the worst-case
    pair and mined negatives (maxima over noise), and losses that this function does not know.
    """
    if isinstance(loss, DRLossConfig):
        is_sharp = loss.pairing != "worst_case" and not isinstance(loss.prior, HardNegativePrior)
        return _ranking(loss, prior_probability, looks) if is_sharp else None
    if isinstance(loss, FocalLossConfig):
        return fmean(_focal(loss, prior_probability, look) for look in looks)
    if not isinstance(loss, CrossEntropyConfig) or loss.mining != "none":
        return None
    # Both weights 1 and gamma 0, at twice alpha = 1/2.
    plain = FocalLossConfig(alpha=0.5, gamma=0.0)
    return fmean(2 * _focal(plain, prior_probability, look) for look in looks)


def check_first_loss(value: float, expected: float) -> None:
    """Raises TrainingError with an explanation where the first classification loss cannot be right."""
    if LOWEST * expected <= value <= HIGHEST * expected:
        return
    raise TrainingError(
        f"The first classification loss is {value:.4g}; with these settings it must be near {expected:.4g} "
        f"(accepted: {LOWEST * expected:.3g} to {HIGHEST * expected:.3g}). Usual causes: the loss is divided by the "
        "number of positives as the focal loss is; the classifier's bias does not match the prior probability; "
        "inputs are not normalised; logits instead of sigmoid scores are ranked."
    )


def _ranking(loss: DRLossConfig, prior_probability: float, looks: Sequence[FirstLook]) -> float:
    sets = [
        [any(look.positives)] if loss.scope == "batch" else [count > 0 for count in look.positives] for look in looks
    ]
    z = torch.tensor(
        [loss.margin if found else prior_probability - 1 + loss.margin for group in sets for found in group],
        dtype=torch.float64,
    )
    if isinstance(loss.surrogate, Hinge):
        values = hinge(z)
    elif isinstance(loss.surrogate, Quadratic):
        values = quadratic(z, loss.surrogate.rho)
    else:
        values = logistic(z, loss.surrogate.L)
    return loss.tau * float(values.mean())


def _focal(loss: FocalLossConfig, p: float, look: FirstLook) -> float:
    positive = look.num_positive * loss.alpha * math.pow(1 - p, loss.gamma) * -math.log(p)
    negative = look.num_negative * (1 - loss.alpha) * math.pow(p, loss.gamma) * -math.log1p(-p)
    if loss.normalizer == "positives":
        return (positive + negative) / max(1, look.num_positive)
    return (positive + negative) / (look.num_positive + len(look.positives))


def _odds(p: float) -> float:
    return p / (1 - p) if p < 1 else math.inf
