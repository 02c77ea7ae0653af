"""From a loss as declared data to the module that computes it."""

from __future__ import annotations

from typing import Literal

from torch import nn

from drloss.config import (
    CrossEntropyConfig,
    DRLossConfig,
    FocalLossConfig,
    HardNegativePrior,
    Logistic,
    LossConfig,
    Quadratic,
)
from drloss.modules import CrossEntropyLoss, DRLoss, FocalLoss
from drloss.surrogates import SurrogateName


def build_loss(config: LossConfig, *, fused: bool = True) -> nn.Module:
    """The module that ``config`` declares, called as ``loss(logits, labels)``. fused: see ``functional``."""
    if isinstance(config, DRLossConfig):
        return _build_dr(config, fused)
    if isinstance(config, FocalLossConfig):
        return FocalLoss(alpha=config.alpha, gamma=config.gamma, normalizer=config.normalizer, fused=fused)
    assert isinstance(config, CrossEntropyConfig)
    return CrossEntropyLoss(mining=config.mining, ratio=config.ratio, fused=fused)


def _build_dr(config: DRLossConfig, fused: bool) -> DRLoss:
    """A parameter that the chosen surrogate or prior does not have keeps the module's default, which it ignores."""
    surrogate: SurrogateName = "hinge"
    parameters: dict[str, float] = {}
    if isinstance(config.surrogate, Logistic):
        surrogate, parameters["L"] = "logistic", config.surrogate.L
    elif isinstance(config.surrogate, Quadratic):
        surrogate, parameters["rho"] = "quadratic", config.surrogate.rho
    prior: Literal["uniform", "hard_negative"] = "uniform"
    if isinstance(config.prior, HardNegativePrior):
        prior, parameters["ratio"] = "hard_negative", config.prior.ratio
    return DRLoss(
        lambda_pos=config.lambda_pos,
        lambda_neg=config.lambda_neg,
        margin=config.margin,
        tau=config.tau,
        surrogate=surrogate,
        pairing=config.pairing,
        scope=config.scope,
        prior=prior,
        fused=fused,
        **parameters,
    )
