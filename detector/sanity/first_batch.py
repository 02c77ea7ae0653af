"""A fresh training is checked on its first batch, and stopped where it cannot be right.

Before training all scores are close to the prior probability, so the first loss is known in closed form. (Twice, people
trained DR with the focal loss's division by the number of positives left in place: a loss 4,000 times too small.) And
boxes that are read or scaled wrongly match another number of anchors than the data set's do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from msgspec import Struct
from msgspec.structs import replace

from detector.data.loader import Group
from detector.device.world import World
from detector.errors import TrainingError
from detector.model.assign import assign_anchors
from detector.model.retinanet import RetinaNet
from detector.runs.assignment import AnchorRanges
from drloss.labels import BACKGROUND, IGNORED
from drloss.registry import GroupCounts, initial_value

# Logits with a deviation of 0.3 already give a first DR loss of 2.29 where 2.032 is expected, so no tighter.
LOWEST, HIGHEST = 0.7, 1.4
# Borderline anchors have at least this IoU with a box and are not positive. It is fixed, so that rows with another
# background IoU (0.5: no anchor is ignored) are held to the same range.
BORDERLINE_IOU = 0.4


@dataclass(frozen=True)
class FirstLook:
    """One group of images before the first step.

    mean_score: of all its (anchor, class) entries, 0..1. counts: what the loss counts. borderline: anchors per image.
    """

    mean_score: float
    counts: GroupCounts
    borderline: tuple[int, ...]


@torch.no_grad()
def look_at(model: RetinaNet, group: Group) -> FirstLook:
    """Look at one group in one extra forward pass; the model is not changed."""
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
    return FirstLook(mean_score, GroupCounts(tuple(positives), num_positive, num_negative), tuple(borderline))


def check_scores(looks: Sequence[FirstLook], prior_probability: float) -> None:
    """Raises TrainingError where the first scores are not near the prior.

    The odds are compared, because noise changes them least.
    """
    mean = fmean(look.mean_score for look in looks)
    ratio = _odds(mean) / _odds(prior_probability)
    if not LOWEST <= ratio <= HIGHEST:
        raise TrainingError(
            f"The mean score before the first step is {mean:.4g}; it must be near the prior probability, "
            f"{prior_probability:g}. Usual causes: the classifier's bias does not match the prior; the inputs are not "
            "normalised as the weights expect (0..1 for 0..255, RGB for BGR), so that activations are too large."
        )


def check_anchors(
    looks: Sequence[FirstLook],
    ranges: AnchorRanges,
    world: World,
    own: Callable[[], AnchorRanges | None] = lambda: None,
) -> None:
    """Raises TrainingError where the first batch's anchors per image are out of the data set's range.

    The means are over the images of all processes, so that every process gets the same answer. own: measures the ranges
    of the data set itself (None: ``ranges`` are its own); it is called only where ``ranges`` do not hold, since that
    takes seconds.
    """
    everyone = [look for shard in world.gather(list(looks)) for look in shard]
    means = (
        fmean(count for look in everyone for count in look.counts.positives),
        fmean(count for look in everyone for count in look.borderline),
    )
    wrong = _outside(means, ranges)
    if wrong is not None and (measured := own()) is not None:
        wrong = _outside(means, measured)
    if wrong is not None:
        raise TrainingError(
            f"In the first batch {wrong}. "
            "Usual causes: boxes read as (x, y, w, h) instead of corners, or in 0..1 instead of pixels; boxes not "
            "scaled with the image; anchors of other sizes or strides. To look at boxes and anchors: "
            "harness data verify, harness explain. If the data are meant to be so, this is another experiment: any "
            "--set switches the check off."
        )


def _outside(means: tuple[float, float], ranges: AnchorRanges) -> str | None:
    """Which mean (positive, borderline) is out of its range, in words."""
    for mean, (low, high), meaning in (
        (means[0], ranges.positives, "positive"),
        (means[1], ranges.borderline, f"between IoU {BORDERLINE_IOU} and positive"),
    ):
        if not low <= mean <= high:
            return f"{mean:.1f} anchors per image are {meaning}; on this data {low:g} to {high:g} are"
    return None


def expected_first_loss(loss: Struct, prior_probability: float, looks: Sequence[FirstLook]) -> float | None:
    """The classification loss where every score equals the prior: the mean over the groups. None where not known."""
    return initial_value(loss, prior_probability, [look.counts for look in looks])


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


def _odds(p: float) -> float:
    return p / (1 - p) if p < 1 else math.inf
