"""The losses as declared data: what a recipe writes and what the id of a run is made from. Free of torch.

Each loss is a struct; its tag, ``name``, tells them apart. A parameter exists only where it has a meaning (a hinge has
no ``L``), so that one loss cannot be written in two ways and get two ids. ``drloss.build_loss`` makes the module.
``LossSpec`` says all that the rest of the software must know of a loss, a built-in one or a plug-in's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

import msgspec.structs
from msgspec import Meta, Struct

if TYPE_CHECKING:
    from torch import nn

Positive = Annotated[float, Meta(gt=0, le=1e6)]
RATIO = 3.0  # hard negatives per positive, SSD's
# The base h of the paper's KL divergence: lambda_pos = 1 / log(h_pos), lambda_neg = 0.1 / log(h_neg), Table 1.
KLBase = Literal["e"] | Annotated[float, Meta(gt=1, le=1e300)]


class Hinge(Struct, frozen=True, forbid_unknown_fields=True, tag_field="name", tag="hinge"):
    """max(z, 0), section 3.1."""


class Quadratic(Struct, frozen=True, forbid_unknown_fields=True, tag_field="name", tag="quadratic"):
    """Eq. 7: smoothing of the hinge on (-rho, rho)."""

    rho: Positive


class Logistic(Struct, frozen=True, forbid_unknown_fields=True, tag_field="name", tag="logistic"):
    """Eq. 8: log(1 + exp(L z)) / L."""

    L: Positive = 6.0


class UniformPrior(Struct, frozen=True, forbid_unknown_fields=True, tag_field="name", tag="uniform"):
    """o_j = 1 / n: the paper's choice."""


class HardNegativePrior(Struct, frozen=True, forbid_unknown_fields=True, tag_field="name", tag="hard_negative"):
    """o_j in {0, 1 / n^}: only the best-scoring negatives count, ``ratio`` per positive (at least one)."""

    ratio: Positive = RATIO


# By pairing, the regularisers that it does not have: all pairs weigh alike, the hardest pair stands alone.
_UNUSED = {"dr": (), "neg_only": ("h_pos",), "all": ("h_pos", "h_neg"), "worst_case": ("h_pos", "h_neg")}


class DRLossConfig(Struct, frozen=True, forbid_unknown_fields=True, tag_field="name", tag="dr", kw_only=True):
    """Distributional ranking and the pairings it is compared with (Eqs. 3, 5, 9 and NegOnly). Paper's defaults."""

    h_pos: KLBase = "e"
    h_neg: KLBase = 3.5
    margin: Annotated[float, Meta(ge=-1e6, le=1e6)] = 0.5
    tau: Positive = 4.0
    surrogate: Logistic | Quadratic | Hinge = Logistic()
    pairing: Literal["dr", "neg_only", "all", "worst_case"] = "dr"
    scope: Literal["image", "batch"] = "image"
    prior: UniformPrior | HardNegativePrior = UniformPrior()

    def __post_init__(self) -> None:
        """Write Euler's number as "e"; raise ValueError for a regulariser that the pairing does not use.

        Either way one loss would be written in two ways, and its trainings would have two ids.
        """
        for name in ("h_pos", "h_neg"):
            if log_base(getattr(self, name)) == 1.0:
                msgspec.structs.force_setattr(self, name, "e")
        for name in _UNUSED[self.pairing]:
            meant = getattr(type(self)(), name)
            if getattr(self, name) != meant:
                raise ValueError(_no_effect(name, getattr(self, name), meant, f"pairing {self.pairing!r}"))

    @property
    def lambda_pos(self) -> float:
        """Regulariser of the positives' distribution: 1 / log(h_pos)."""
        return 1.0 / log_base(self.h_pos)

    @property
    def lambda_neg(self) -> float:
        """Regulariser of the negatives' distribution: 0.1 / log(h_neg)."""
        return 0.1 / log_base(self.h_neg)


class FocalLossConfig(Struct, frozen=True, forbid_unknown_fields=True, tag_field="name", tag="focal", kw_only=True):
    """Focal loss (Lin et al., 2017), divided by positive anchors + images of the group, or by max(1, positives).

    ``added``: fields that came in a later release. Jobs from before mean their defaults.
    """

    added: ClassVar[tuple[str, ...]] = ("normalizer",)

    alpha: Annotated[float, Meta(ge=0, le=1)] = 0.25
    gamma: Annotated[float, Meta(ge=0, le=1e6)] = 2.0
    normalizer: Literal["positives_and_images", "positives"] = "positives_and_images"


class CrossEntropyConfig(
    Struct, frozen=True, forbid_unknown_fields=True, tag_field="name", tag="cross_entropy", kw_only=True
):
    """Sigmoid cross entropy, optionally with SSD's hard negative mining (``ratio`` negatives per positive)."""

    mining: Literal["none", "hard_negative"] = "none"
    ratio: Positive = RATIO

    def __post_init__(self) -> None:
        """Raise ValueError for a ratio without mining: it would give one loss two ids."""
        if self.mining == "none" and self.ratio != RATIO:
            raise ValueError(_no_effect("ratio", self.ratio, RATIO, "mining 'none'"))


# The built-in losses. ``drloss.plugins.LossConfig`` has those of installed packages as well.
LossConfig: TypeAlias = DRLossConfig | FocalLossConfig | CrossEntropyConfig


@dataclass(frozen=True)
class GroupCounts:
    """Of one group of images (those that share a normaliser), what a loss counts before the first step.

    positives: positive anchors of each image. num_positive, num_negative: (anchor, class) entries of the whole group
    that are positive and negative; entries of ignored anchors are neither.
    """

    positives: tuple[int, ...]
    num_positive: int
    num_negative: int


Build: TypeAlias = "Callable[[Any], nn.Module]"
InitialValue: TypeAlias = Callable[[Any, float, Sequence[GroupCounts]], float | None]


@dataclass(frozen=True)
class LossSpec:
    """All that the software knows of one loss. A plug-in package has one per loss (entry points ``drloss.losses``).

    Attributes:
        name: what a recipe writes as ``loss: {name: ...}``; the tag of ``config``.
        config: the loss's parameters, a msgspec Struct with frozen=True, forbid_unknown_fields=True, tag_field="name"
            and tag=name.
        build: ``build(config) -> nn.Module``. The module is called as ``loss(logits, labels, images_per_group=G)``:
            logits is a list with one float tensor [N, R_l, K] per pyramid level, labels are int64 [N, R] with R the
            sum of the R_l: 0 .. K-1 a class, -1 background, -2 ignored. G consecutive images are a group, which has
            one normaliser. Returns the mean over the groups, a scalar, or one value per image [N]. Persistent buffers
            are saved in checkpoints.
        initial_value: ``initial_value(config, prior, counts) -> float | None``, the loss before training, where every
            score equals ``prior`` (0..1): the mean over ``counts``, one per group of the first batch. A training whose
            first loss is not within 0.7 to 1.4 times this value stops. None: the first loss is not checked.

    ``build`` and ``initial_value`` are functions, or the text "package.module:function" that is imported when it is
    first needed, so that a package can declare its loss without importing torch.
    """

    name: str
    config: type[Struct]
    build: Build | str
    initial_value: InitialValue | str | None = None


def log_base(h: KLBase) -> float:
    """log(h), where "e" is Euler's number, as Table 1 writes it."""
    return 1.0 if h == "e" else math.log(h)


def _no_effect(name: str, value: object, meant: object, where: str) -> str:
    return f"{name} is {value}, but has no effect with {where}; leave it out, or give {meant}"
