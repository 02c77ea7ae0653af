"""speeds.yaml: how fast trainings were on which GPUs, and what the makers say of those GPUs. Free of torch."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from msgspec import Meta

from detector.runs.job import Backbone, Count, PositiveFloat, Precision, Settings
from harness.registry.claims import Line


class GpuKind(Settings, frozen=True):
    """One kind of GPU, with its maker's figures.

    ``name``: the short one, as in ``--gpus 8xH100``; ``names``: those that drivers report for it. ``tflops``: peak rate
    of dense products by the precision of the training (fp32 without tensor cores); a precision that is not there is
    not trained in on this GPU. ``terabytes_per_second``: of its memory. ``source``: of the figures.
    """

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$(?!\n)")]
    names: Annotated[tuple[Line, ...], Meta(min_length=1)]
    tflops: dict[Precision, PositiveFloat]
    terabytes_per_second: PositiveFloat
    source: Line


class MeasuredSpeed(Settings, frozen=True, kw_only=True):
    """Seconds per iteration of ``images`` images, on ``gpus`` GPUs of one name together.

    ``of``: a ``training`` loads real images of all shapes; a ``step`` is the same images of one shape over and over,
    which no training is faster than. ``short_side``: pixels. ``seen``: the fastest and the slowest where several were
    measured; ``seconds_per_iteration`` then lies between them. ``source``: what was measured, in words.
    """

    gpu: Line
    gpus: Count
    of: Literal["training", "step"]
    backbone: Backbone
    precision: Precision
    groups_per_forward: Count
    images: Count
    short_side: Count
    seconds_per_iteration: PositiveFloat
    seen: tuple[PositiveFloat, PositiveFloat] | None = None
    source: Line

    def __post_init__(self) -> None:
        """Reject a value outside of what was seen (msgspec turns the ValueError into a ValidationError)."""
        if self.seen is not None and not self.seen[0] <= self.seconds_per_iteration <= self.seen[1]:
            raise ValueError(f"seconds_per_iteration {self.seconds_per_iteration} is not between the ends of 'seen'")

    @property
    def key(self) -> tuple[object, ...]:
        """What a newer measurement must have in common to take this one's place."""
        what = (self.gpu, self.gpus, self.of, self.backbone, self.precision)
        return (*what, self.groups_per_forward, self.images, self.short_side)

    @property
    def gpu_seconds_per_image(self) -> float:
        """Seconds of one GPU per image."""
        return self.seconds_per_iteration * self.gpus / self.images


class SpeedsFile(Settings, frozen=True):
    """speeds.yaml, the project's or one of your own: GPUs, and what was measured on them."""

    gpus: tuple[GpuKind, ...] = ()
    speeds: tuple[MeasuredSpeed, ...] = ()

    def kind(self, name: str) -> GpuKind | None:
        """The kind of a GPU by its short name or a driver's, whatever the case and the maker; None if unknown."""
        wanted = plain_name(name)
        return next((kind for kind in self.gpus if wanted in map(plain_name, (kind.name, *kind.names))), None)

    def merged(self, other: SpeedsFile) -> SpeedsFile:
        """With the entries of ``other``, each in the place of one with the same name or key."""
        gpus = {plain_name(kind.name): kind for kind in (*self.gpus, *other.gpus)}
        speeds = {speed.key: speed for speed in (*self.speeds, *other.speeds)}
        return SpeedsFile(tuple(gpus.values()), tuple(speeds.values()))


def plain_name(name: str) -> str:
    """A GPU's name without its maker, case, spaces and dashes: what two spellings have in common."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"^(nvidia|tesla|geforce)[ _-]+", "", name.lower().strip()))
