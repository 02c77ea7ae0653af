"""The first loss of a fresh DR training is known beforehand; far from it, something is wired wrongly.

At initialisation all scores are close to the prior probability, so P- - P+ + margin is close to the margin (and to
prior - 1 + margin in an image without positives). Twice, people left the focal loss's division by the number of
positives in place and trained with a loss 4,000 times too small.
"""

from __future__ import annotations

import torch

from detector.errors import TrainingError
from drloss.config import DRLossConfig, Hinge, LossConfig, Quadratic
from drloss.surrogates import hinge, logistic, quadratic

# Logits with a deviation of 0.3 already give 2.29 for an expected 2.032, so no tighter.
LOWEST, HIGHEST = 0.7, 1.4


def expected_first_loss(loss: LossConfig, prior_probability: float, has_boxes: list[bool]) -> float | None:
    """Mean over the images of tau * l(margin), or tau * l(prior - 1 + margin) where there is no box.

    None where the first loss has no sharp value: other losses, and the worst-case pair (a maximum over noise).
    """
    if not isinstance(loss, DRLossConfig) or loss.pairing == "worst_case" or not has_boxes:
        return None
    if loss.scope == "batch":
        has_boxes = [any(has_boxes)]
    z = torch.tensor([loss.margin if found else prior_probability - 1 + loss.margin for found in has_boxes])
    if isinstance(loss.surrogate, Hinge):
        values = hinge(z)
    elif isinstance(loss.surrogate, Quadratic):
        values = quadratic(z, loss.surrogate.rho)
    else:
        values = logistic(z, loss.surrogate.L)
    return loss.tau * float(values.mean())


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
