"""The losses as modules, called as ``loss(logits, labels)``. Hyperparameters are checked once, when built.

logits: [N, R, K] (N images, R anchors, K classes), [R, K] for one image, or a list with one [N, R_l, K] per pyramid
level. labels: int64 [N, R] (or [R]): ``0 .. K-1`` a class, ``drloss.BACKGROUND`` (-1), ``drloss.IGNORED`` (-2).
Returns a scalar: float64 for float64 logits, else float32, under autocast too. Raises TypeError where logits or labels
are not tensors, ValueError where shapes or labels do not fit (``inputs.prepared`` says when labels are checked).
"""

from __future__ import annotations

from typing import Literal, TypeAlias, TypedDict

from torch import Tensor, nn

from drloss import functional
from drloss.checks import require_between, require_choice, require_flag, require_positive
from drloss.functional.distributional import LAMBDA_NEG, LAMBDA_POS, MARGIN
from drloss.functional.pointwise import Normalizer
from drloss.inputs import Logits, Scope
from drloss.surrogates import Surrogate, SurrogateName, make_surrogate

Pairing: TypeAlias = Literal["dr", "neg_only", "all", "worst_case"]


class _Common(TypedDict):
    """Arguments of every ranking loss."""

    margin: float
    surrogate: Surrogate
    hard_negative_ratio: float | None
    scope: Scope
    images_per_group: int | None
    fused: bool


class DRLoss(nn.Module):
    """The DR loss: tau times the mean over images of a ranking loss, Eq. 9 with the paper's values by default.

    In each image, the expected score of the hardest positives P+ is to lead that of the hardest negatives P- by a
    margin: loss = tau * l(P- - P+ + margin). It is a mean over images: do not divide it by the number of positives.
    Begin with the classifier's bias at 0 (all scores 0.5): the first loss is 2.03 where every image has a positive.

    Called as ``loss(logits, labels)``, which returns a scalar:

    - logits: float [N, R, K] (N images, R anchors, K classes), [R, K] for one image, or a list with one [N, R_l, K]
      per pyramid level.
    - labels: int64 [N, R] (or [R]): 0 .. K-1 a class, -1 background (``BACKGROUND``), -2 ignored (``IGNORED``).

    Args:
        lambda_pos: lambda+ of Proposition 2, the weight of the KL divergence from the positives' prior; > 0. The
            default is 1 / log(h+) with h+ = e. inf gives the plain mean.
        lambda_neg: lambda- of Proposition 1, the same for the negatives. The default is 0.1 / log(h-) with h- = 3.5,
            0.0798. "neg_only" ignores lambda_pos; "all" and "worst_case" ignore both.
        margin: gamma of the paper, by which positives are to lead: 0.5.
        tau: weight of the loss beside the box regression's, > 0: 4.
        surrogate: l, the smooth stand-in for the ranking error: "logistic" (Eq. 8), "quadratic" (Eq. 7) or "hinge".
        L: of the logistic, > 0: 6.
        rho: of the quadratic, > 0: 0.5.
        pairing: "dr" ranks expectations (Eq. 9), "neg_only" each positive against P-, "all" every pair (the mean of
            Eq. 4), "worst_case" the one extreme pair (Eq. 5).
        scope: "image" ranks within each image, "batch" all entries of all images as one set.
        prior: "uniform", or "hard_negative", which keeps only the ``ratio`` best-scoring negatives per positive.
        ratio: of the hard negatives, > 0: 3.
        fused: False computes in plain torch, which is slower and can be differentiated twice.

    Raises:
        ValueError: a value is out of range or a name unknown.

    Example:
        >>> import torch
        >>> from drloss import BACKGROUND, IGNORED, DRLoss
        >>> logits = torch.zeros(2, 1000, 80, requires_grad=True)  # 2 images, 1000 anchors, 80 classes
        >>> labels = torch.full((2, 1000), BACKGROUND)
        >>> labels[:, :5] = 17  # five positive anchors of class 17 in each image
        >>> labels[:, 5:20] = IGNORED
        >>> loss = DRLoss()(logits, labels)
        >>> round(loss.item(), 3)  # 4 log(1 + e^3) / 6
        2.032
        >>> loss.backward()
    """

    def __init__(
        self,
        lambda_pos: float = LAMBDA_POS,
        lambda_neg: float = LAMBDA_NEG,
        margin: float = MARGIN,
        tau: float = 4.0,
        surrogate: SurrogateName = "logistic",
        L: float = 6.0,
        rho: float = 0.5,
        pairing: Pairing = "dr",
        scope: Scope = "image",
        prior: Literal["uniform", "hard_negative"] = "uniform",
        ratio: float = 3.0,
        fused: bool = True,
    ) -> None:
        super().__init__()
        require_flag("fused", fused)
        require_positive("lambda_pos", lambda_pos, or_inf=True)
        require_positive("lambda_neg", lambda_neg, or_inf=True)
        require_between("margin", margin, -float("inf"))
        require_positive("tau", tau)
        require_choice("pairing", pairing, ("dr", "neg_only", "all", "worst_case"))
        require_choice("scope", scope, ("image", "batch"))
        require_choice("prior", prior, ("uniform", "hard_negative"))
        require_positive("ratio", ratio)
        self.lambda_pos = lambda_pos
        self.lambda_neg = lambda_neg
        self.margin = margin
        self.tau = tau
        self.pairing = pairing
        self.scope: Scope = scope
        self.fused = fused
        self.hard_negative_ratio = ratio if prior == "hard_negative" else None
        self.surrogate = make_surrogate(surrogate, L=L, rho=rho)
        self._surrogate_text = surrogate + {"logistic": f"(L={L})", "quadratic": f"(rho={rho})", "hinge": ""}[surrogate]

    def forward(self, logits: Logits, labels: Tensor, *, images_per_group: int | None = None) -> Tensor:
        """tau * mean over images (scope "image"), or tau * the loss of the one set (scope "batch").

        images_per_group: None makes one group of all images; else the mean is taken over groups.
        """
        common: _Common = {
            "margin": self.margin,
            "surrogate": self.surrogate,
            "hard_negative_ratio": self.hard_negative_ratio,
            "scope": self.scope,
            "images_per_group": images_per_group,
            "fused": self.fused,
        }
        if self.pairing == "dr":
            lambdas = {"lambda_pos": self.lambda_pos, "lambda_neg": self.lambda_neg}
            return self.tau * functional.dr_loss(logits, labels, **lambdas, **common)
        if self.pairing == "neg_only":
            return self.tau * functional.neg_only_loss(logits, labels, lambda_neg=self.lambda_neg, **common)
        rank = functional.all_pairs_loss if self.pairing == "all" else functional.worst_case_loss
        return self.tau * rank(logits, labels, **common)

    def extra_repr(self) -> str:
        return (
            f"pairing={self.pairing}, lambda_pos={self.lambda_pos:.4g}, lambda_neg={self.lambda_neg:.4g}, "
            f"margin={self.margin}, tau={self.tau}, surrogate={self._surrogate_text}, scope={self.scope}, "
            f"hard_negative_ratio={self.hard_negative_ratio}"
        )


class FocalLoss(nn.Module):
    """Focal loss (Lin et al., 2017): the sum over a group of images, divided by its ``normalizer``.

    All images of a call are one group. Called as ``DRLoss``. alpha: weight of positives, 0..1. gamma: >= 0.
    normalizer: "positives_and_images" (positive anchors + images) or "positives" (at least 1). Raises ValueError for a
    value out of range and for an unknown normalizer.
    """

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2.0,
        normalizer: Normalizer = "positives_and_images",
        fused: bool = True,
    ) -> None:
        super().__init__()
        require_flag("fused", fused)
        require_choice("normalizer", normalizer, ("positives_and_images", "positives"))
        require_between("alpha", alpha, 0.0, 1.0)
        require_between("gamma", gamma, 0.0)
        self.alpha = alpha
        self.gamma = gamma
        self.normalizer: Normalizer = normalizer
        self.fused = fused

    def forward(self, logits: Logits, labels: Tensor, *, images_per_group: int | None = None) -> Tensor:
        """Scalar, the mean over groups; see the module's docstring for shapes."""
        return functional.focal_loss(
            logits,
            labels,
            alpha=self.alpha,
            gamma=self.gamma,
            normalizer=self.normalizer,
            images_per_group=images_per_group,
            fused=self.fused,
        )

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, gamma={self.gamma}, normalizer={self.normalizer}"


class CrossEntropyLoss(nn.Module):
    """Sigmoid cross entropy, divided by (positive anchors + images). Called as ``DRLoss``.

    mining: "none", or "hard_negative", which keeps the ``ratio`` negatives of highest loss per positive (SSD: 3).
    Raises ValueError for an unknown mining or ratio <= 0.
    """

    def __init__(
        self, mining: Literal["none", "hard_negative"] = "none", ratio: float = 3.0, fused: bool = True
    ) -> None:
        super().__init__()
        require_flag("fused", fused)
        require_choice("mining", mining, ("none", "hard_negative"))
        require_positive("ratio", ratio)
        self.hard_negative_ratio = ratio if mining == "hard_negative" else None
        self.fused = fused

    def forward(self, logits: Logits, labels: Tensor, *, images_per_group: int | None = None) -> Tensor:
        """Scalar, the mean over groups; see the module's docstring for shapes."""
        return functional.cross_entropy_loss(
            logits,
            labels,
            hard_negative_ratio=self.hard_negative_ratio,
            images_per_group=images_per_group,
            fused=self.fused,
        )

    def extra_repr(self) -> str:
        return f"hard_negative_ratio={self.hard_negative_ratio}"
