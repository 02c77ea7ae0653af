"""The losses as declared data: what a recipe writes, what a run's identity hashes. Free of torch.

One struct per loss, told apart by ``name``; a parameter exists only where it has a meaning (a hinge has no ``L``),
so that two spellings of one loss cannot get two identities. ``drloss.build_loss`` makes the module.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

Positive = Annotated[float, Meta(gt=0)]
# The base h of the paper's KL divergence: lambda_pos = 1 / log(h_pos), lambda_neg = 0.1 / log(h_neg), Table 1.
KLBase = Literal["e"] | Annotated[float, Meta(gt=1)]


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
    """o_j in {0, 1 / n^}: only the best-scoring negatives are candidates, ``ratio`` a positive (at least 1)."""

    ratio: Positive = 3.0


class DRLossConfig(Struct, frozen=True, forbid_unknown_fields=True, tag_field="name", tag="dr", kw_only=True):
    """Distributional ranking and the pairings it is compared with (Eqs. 3, 5, 9 and NegOnly). Paper's defaults."""

    h_pos: KLBase = "e"
    h_neg: KLBase = 3.5
    margin: float = 0.5
    tau: Positive = 4.0
    surrogate: Logistic | Quadratic | Hinge = Logistic()
    pairing: Literal["dr", "neg_only", "all", "worst_case"] = "dr"
    scope: Literal["image", "batch"] = "image"
    prior: UniformPrior | HardNegativePrior = UniformPrior()

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

    ``added``: fields of a later release; older jobs meant their defaults by leaving them out.
    """

    added: ClassVar[tuple[str, ...]] = ("normalizer",)

    alpha: Annotated[float, Meta(ge=0, le=1)] = 0.25
    gamma: Annotated[float, Meta(ge=0)] = 2.0
    normalizer: Literal["positives_and_images", "positives"] = "positives_and_images"


class CrossEntropyConfig(
    Struct, frozen=True, forbid_unknown_fields=True, tag_field="name", tag="cross_entropy", kw_only=True
):
    """Sigmoid cross entropy, optionally with SSD's hard negative mining (``ratio`` negatives a positive)."""

    mining: Literal["none", "hard_negative"] = "none"
    ratio: Positive = 3.0


LossConfig = DRLossConfig | FocalLossConfig | CrossEntropyConfig


def log_base(h: KLBase) -> float:
    """log(h), where "e" is Euler's number, as Table 1 writes it."""
    return 1.0 if h == "e" else math.log(h)
