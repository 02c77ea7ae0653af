"""Remark 2 of the paper: the same epochs with another mini-batch, the learning rate in proportion.

With m' = m / alpha images per batch and T' = alpha T iterations, Theorem 1 asks for eta' = eta / alpha, and gives the
same convergence rate as long as eta' <= 1 / mu, mu being the smoothness of the objective. Nobody knows mu: a profile
states the largest learning rate that is known to train (``lr_limit``).
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

from detector.errors import UsageError
from harness.registry.declarations import Profile

if TYPE_CHECKING:
    from harness.registry.resolution import Resolution


def rescale(resolution: Resolution, images: int, profile: Profile) -> None:
    """Change ``batch.images``, and with it the learning rate, iterations, warm-up and milestones, together.

    Raises UsageError for a batch that the groups do not divide, that the schedule cannot be cut to, or that asks for a
    learning rate above the profile's limit.
    """
    before, group = resolution.get("batch.images"), resolution.get("batch.images_per_group")
    if images < 1 or images % group:
        raise UsageError(
            f"--batch-size {images} is not a multiple of the {group} images of a group (batch.images_per_group)."
        )
    alpha = Fraction(before, images)
    rate = resolution.get("optimizer.lr") / float(alpha)
    if profile.lr_limit is not None and rate > profile.lr_limit * (1 + 1e-9):
        largest = int(profile.lr_limit / resolution.get("optimizer.lr") * before) // group * group
        raise UsageError(
            f"--batch-size {images} is too large for the rule of Remark 2: it asks for a learning rate of {rate:g}, "
            "and Theorem 1 holds up to 1 / mu only, mu being the smoothness of the objective. At profile "
            f"{profile.name} {profile.lr_limit:g} is known to train, which is a batch of {largest}. A larger one with "
            "a rate of your own choice is another experiment: --set batch.images=... --set optimizer.lr=..."
        )
    changed = {
        "batch.images": images,
        "optimizer.lr": rate,
        "schedule.iterations": _scaled(resolution.get("schedule.iterations"), alpha),
        "schedule.warmup_iterations": _scaled(resolution.get("schedule.warmup_iterations"), alpha),
        "schedule.milestones": [_scaled(milestone, alpha) for milestone in resolution.get("schedule.milestones")],
    }
    steps = [0, *changed["schedule.milestones"], changed["schedule.iterations"]]
    if any(later <= earlier for earlier, later in pairwise(steps)):
        raise UsageError(
            f"--batch-size {images} leaves {changed['schedule.iterations']} iterations, too few to tell the milestones "
            f"{changed['schedule.milestones']} apart. Take a smaller batch."
        )
    for path, value in changed.items():
        resolution.put(path, value, f"--batch-size {images} (Remark 2)")


def _scaled(iterations: int, alpha: Fraction) -> int:
    """To the nearest whole iteration."""
    return round(iterations * alpha)
