"""Which images are shown: the best and the worst of a run, and those that changed most between two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from detector.errors import DataError
from harness.figures.images.scenes import Scene

if TYPE_CHECKING:
    from detector.evaluation.pictures.outcome import Outcome


@dataclass(frozen=True)
class Change:
    """An image of two evaluations: position in their index, and its AP50 (0..1) in each."""

    position: int
    ap: float
    other: float


def image_aps(scene: Scene) -> dict[int, float]:
    """By position, the AP50 (0..1) of every image that holds an object: ``image_ap``."""
    from detector.evaluation.pictures.outcome import image_ap

    values = ((position, image_ap(outcome)) for position, outcome in enumerate(scene.outcomes))
    return {position: value for position, value in values if value is not None}


def best_and_worst(scene: Scene, count: int) -> tuple[list[int], list[int]]:
    """Positions of the ``count`` images of the highest and of the lowest AP50, the extreme first.

    Of equals those with more objects, then by id. No image is in both: of few images the better half can be best.
    """
    values = image_aps(scene)

    def objects(position: int) -> int:
        return _objects(scene.outcomes[position])

    best = sorted(values, key=lambda i: (-values[i], -objects(i), i))[: min(count, (len(values) + 1) // 2)]
    rest = [position for position in values if position not in set(best)]
    return best, sorted(rest, key=lambda i: (values[i], -objects(i), i))[:count]


def changed(a: Scene, b: Scene, count: int) -> tuple[list[Change], list[Change]]:
    """The ``count`` images on which the AP50 of ``a`` is above that of ``b`` by most, and the other way round.

    Of equal differences those with more objects first. Raises DataError where the two are not of the same images.
    """
    if a.record.test_split.sha256 != b.record.test_split.sha256 or a.index.num_images != b.index.num_images:
        raise DataError(f"{a.name} and {b.name} were evaluated on different images, which cannot be set side by side.")
    ours, theirs = image_aps(a), image_aps(b)
    every = [Change(i, ours[i], theirs[i]) for i in ours]

    def most(sign: int) -> list[Change]:
        moved = [one for one in every if sign * (one.ap - one.other) > 0]
        key = lambda one: (-abs(one.ap - one.other), -_objects(a.outcomes[one.position]), one.position)  # noqa: E731
        return sorted(moved, key=key)[:count]

    return most(1), most(-1)


def _objects(outcome: Outcome) -> int:
    return outcome.num_objects
