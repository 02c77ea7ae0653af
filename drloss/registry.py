"""The table of all losses: from a loss as declared data to its module, and to its value before training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Final, Literal

from msgspec import Struct
from torch import nn

from drloss.config import (
    CrossEntropyConfig,
    DRLossConfig,
    FocalLossConfig,
    GroupCounts,
    HardNegativePrior,
    Logistic,
    LossSpec,
    Quadratic,
)
from drloss.initial_value import cross_entropy_value, focal_value, ranking_value
from drloss.modules import CrossEntropyLoss, DRLoss, FocalLoss
from drloss.plugins import plugins
from drloss.surrogates import SurrogateName

__all__ = ["BUILT_IN", "GroupCounts", "LossSpec", "build_loss", "initial_value", "loss_specs"]


def loss_specs() -> tuple[LossSpec, ...]:
    """The built-in losses, then those of installed packages that can be used."""
    return BUILT_IN + tuple(plugin.spec for plugin in plugins() if plugin.spec)


def build_loss(config: Struct, *, fused: bool = True) -> nn.Module:
    """The module that ``config`` declares, called as ``loss(logits, labels)``: see ``LossSpec``.

    fused: False keeps a built-in loss to plain torch (see ``drloss.functional``). Raises TypeError for a config that
    is no known loss's.
    """
    module: nn.Module = _function(_spec_of(config).build)(config)
    if not fused and isinstance(module, DRLoss | FocalLoss | CrossEntropyLoss):
        module.fused = False
    return module


def initial_value(config: Struct, prior: float, counts: Sequence[GroupCounts]) -> float | None:
    """The loss before training, where every score equals ``prior`` (0..1): the mean over ``counts``, one per group.

    None where the value is not known. Raises TypeError for a config that is no known loss's.
    """
    value = _spec_of(config).initial_value
    found: float | None = None if value is None else _function(value)(config, prior, counts)
    return found


def _spec_of(config: Struct) -> LossSpec:
    specs = loss_specs()
    for spec in specs:
        if type(config) is spec.config:
            return spec
    raise TypeError(f"{config!r} is no loss. Known: {', '.join(spec.config.__name__ for spec in specs)}.")


def _function(value: Callable[..., Any] | str) -> Callable[..., Any]:
    """A function as it is, or imported from "package.module:function"."""
    if not isinstance(value, str):
        return value
    module, _, name = value.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


def _dr(config: DRLossConfig) -> DRLoss:
    """The module ignores the parameters of the surrogates and priors that were not chosen."""
    surrogate: SurrogateName = "hinge"
    L, rho, ratio = 6.0, 0.5, 3.0
    if isinstance(config.surrogate, Logistic):
        surrogate, L = "logistic", config.surrogate.L
    elif isinstance(config.surrogate, Quadratic):
        surrogate, rho = "quadratic", config.surrogate.rho
    prior: Literal["uniform", "hard_negative"] = "uniform"
    if isinstance(config.prior, HardNegativePrior):
        prior, ratio = "hard_negative", config.prior.ratio
    return DRLoss(
        lambda_pos=config.lambda_pos,
        lambda_neg=config.lambda_neg,
        margin=config.margin,
        tau=config.tau,
        surrogate=surrogate,
        L=L,
        rho=rho,
        pairing=config.pairing,
        scope=config.scope,
        prior=prior,
        ratio=ratio,
    )


def _focal(config: FocalLossConfig) -> FocalLoss:
    return FocalLoss(alpha=config.alpha, gamma=config.gamma, normalizer=config.normalizer)


def _cross_entropy(config: CrossEntropyConfig) -> CrossEntropyLoss:
    return CrossEntropyLoss(mining=config.mining, ratio=config.ratio)


BUILT_IN: Final = (
    LossSpec("dr", DRLossConfig, build=_dr, initial_value=ranking_value),
    LossSpec("focal", FocalLossConfig, build=_focal, initial_value=focal_value),
    LossSpec("cross_entropy", CrossEntropyConfig, build=_cross_entropy, initial_value=cross_entropy_value),
)
