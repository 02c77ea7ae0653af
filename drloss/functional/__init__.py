"""Each loss as a pure function, one formula each. May import fused, pairs and the rooms below them."""

from __future__ import annotations

from drloss.functional.distributional import (
    all_pairs_loss,
    dr_loss,
    expected_scores,
    expected_value,
    neg_only_loss,
    worst_case_loss,
)
from drloss.functional.pointwise import cross_entropy_loss, focal_loss
from drloss.surrogates import hinge, logistic, make_surrogate, quadratic

__all__ = [
    "all_pairs_loss",
    "cross_entropy_loss",
    "dr_loss",
    "expected_scores",
    "expected_value",
    "focal_loss",
    "hinge",
    "logistic",
    "make_surrogate",
    "neg_only_loss",
    "quadratic",
    "worst_case_loss",
]
