"""From the figures of a data set to the settings of a profile. Every rule of thumb is ours, and written beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from detector.errors import UsageError

if TYPE_CHECKING:
    from detector.data.coco.figures import SplitFigures

PAPER_BATCH, PAPER_SHORT_SIDE, PAPER_MAX_SIZE = 16, 800, 1333
LARGEST_SIZE = 2 ** (2 / 3)  # of the three anchor sizes per level
EPOCHS = 20  # as often as a schedule shows each image, where time allows
FEWEST = 200  # iterations, where time allows; below it hardly anything is learned


@dataclass(frozen=True)
class Scale:
    """What a kind of machine can train.

    ``smallest_anchor`` and ``anchor_scale``: pixels, and in units of a level's stride. ``object_pixels``: the side that
    the median box is given. ``short_sides``: (least, most). ``lr``: for 16 images. ``seconds_per_pixel``: of one
    iteration, per pixel of its batch. ``budget_minutes``: for one run.
    """

    device: Literal["cpu", "gpu"]
    backbone: Literal["slim", "resnet50"]
    anchor_scale: float
    object_pixels: int
    short_sides: tuple[int, int]
    lr: float
    lr_limit: float
    seconds_per_pixel: float
    budget_minutes: float

    @property
    def smallest_anchor(self) -> float:
        """Pixels of the smallest anchor's side, at stride 8."""
        return 8 * self.anchor_scale


# Learning rate, its limit and the speed are the tiny profile's: 400 iterations of 16 images of 96 pixels in half a
# minute on one core.
CPU = Scale("cpu", "slim", 2.0, 24, (96, 256), 0.1, 0.2, 5e-7, 4)
# The paper's learning rate; measured on one H200 in float32, in groups of two images: 1.04 s for 16 of 800 x 1333.
GPU = Scale("gpu", "resnet50", 4.0, 64, (320, 800), 0.01, 0.02, 6e-8, 60)


@dataclass(frozen=True)
class Choices:
    """A profile's numbers, as ``choose`` finds them."""

    backbone: str
    short_side: int
    max_size: int
    last_level: int
    largest_anchor: float
    batch: int
    lr: float
    lr_limit: float
    iterations: int
    warmup: int
    epochs: float
    minutes: float
    groups_per_forward: int
    memory_gb: float
    checkpoint_every: int


def choose(train: SplitFigures, scale: Scale, *, iterations: int | None = None) -> Choices:
    """Settings with which ``train`` is trained in the scale's time. iterations: as many as these, whatever the time."""
    short_side = _short_side(train, scale)
    max_size = round(PAPER_MAX_SIZE * short_side / PAPER_SHORT_SIDE)
    large_box = train.relative_sides[2] * short_side
    last_level = next(n for n in (5, 6, 7) if _largest_anchor(scale, n) >= large_box or n == 7)
    batch = max(2, min(PAPER_BATCH, train.num_trainable) // 2 * 2)
    pixels = _padded(short_side) * _padded(min(max_size, round(short_side * train.aspects[1])))
    seconds = batch * pixels * scale.seconds_per_pixel
    if iterations is None:
        wanted = max(FEWEST, round(EPOCHS * train.num_trainable / batch))
        iterations = max(20, _rounded(min(wanted, 60 * scale.budget_minutes / seconds)))
    # One forward pass takes as many pixels as the tiny profile's on a CPU; on a GPU one group, as the paper's.
    on_cpu = scale.device == "cpu"
    groups = max(1, min(batch // 2, 150_000 // (2 * pixels))) if on_cpu else 1
    memory = max(1.5, math.ceil(2 * (1 + 2 * groups * pixels * 6e-6)) / 2) if on_cpu else 8.0
    return Choices(
        backbone=scale.backbone,
        short_side=short_side,
        max_size=max_size,
        last_level=last_level,
        largest_anchor=_largest_anchor(scale, last_level),
        batch=batch,
        lr=scale.lr * batch / PAPER_BATCH,
        lr_limit=scale.lr_limit,
        iterations=iterations,
        warmup=min(500, iterations // 10),
        epochs=iterations * batch / max(1, train.num_trainable),
        minutes=iterations * seconds / 60,
        groups_per_forward=groups,
        memory_gb=memory,
        checkpoint_every=max(1, min(1000, iterations // 8)),
    )


def pick_splits(splits: Sequence[str], train: str | None, test: str | None, root: str) -> tuple[str, str]:
    """The splits to train and to test on: those given, else the only ones whose names say so.

    Raises UsageError with the choices where a name is unknown, or where it is unclear which is meant.
    """
    listed = ", ".join(splits) or "none"
    for option, given in (("--train-split", train), ("--test-split", test)):
        if given is not None and given not in splits:
            raise UsageError(
                f"{option} {given}: {root} has no annotations/instances_{given}.json. Its splits: {listed}."
            )
    found = train or _only(splits, ("train",)), test or _only(splits, ("val", "test"))
    if found[0] is None or found[1] is None:
        missing = [option for option, name in zip(("--train-split", "--test-split"), found, strict=True) if not name]
        raise UsageError(
            f"Which splits of {root} are for training and for testing? Say so with {' and '.join(missing)}. "
            f"Its splits with annotations (annotations/instances_*.json): {listed}."
        )
    return found[0], found[1]


def _only(splits: Sequence[str], words: tuple[str, ...]) -> str | None:
    """COCO's own name, else the only split that one of the words begins; the first word that finds any decides."""
    for word in words:
        matching = [split for split in splits if split.lower().startswith(word)]
        if f"{word}2017" in matching:
            return f"{word}2017"
        if matching:
            return matching[0] if len(matching) == 1 else None
    return None


def _short_side(train: SplitFigures, scale: Scale) -> int:
    """Such that the median box has the scale's size; not larger than the images, within the scale's limits."""
    least, most = scale.short_sides
    relative = train.relative_sides[1]
    wanted = scale.object_pixels / relative if relative > 0 else most
    own = max(least, math.ceil(train.short_sides[1] / 32) * 32)
    return int(min(most, own, max(least, math.ceil(wanted / 32) * 32)))


def _largest_anchor(scale: Scale, level: int) -> float:
    return float(scale.anchor_scale * 2**level * LARGEST_SIZE)


def _padded(side: int) -> int:
    return -(-side // 32) * 32


def _rounded(count: float) -> int:
    """To two digits."""
    digits = max(0, math.floor(math.log10(max(1.0, count))) - 1)
    return int(Fraction(round(count), 10**digits).__round__() * 10**digits)
