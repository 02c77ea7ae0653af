"""How the sigmoid scores of a test set's entries are spread: the means behind Fig. 4, and counts in bins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detector.runs.findings import Scores

BINS = 100  # of equal width over 0..1
NONE = (0,) * BINS


@dataclass
class ScoreSums:
    """Sums of the sigmoid scores of positive and negative entries over images, of their squares, and counts in bins."""

    positive: float = 0.0
    num_positive: int = 0
    negative: float = 0.0
    num_negative: int = 0
    positive_squares: float = 0.0
    negative_squares: float = 0.0
    positive_bins: tuple[int, ...] = NONE
    negative_bins: tuple[int, ...] = NONE

    def __add__(self, other: ScoreSums) -> ScoreSums:
        pairs = zip(vars(self).items(), vars(other).values(), strict=True)
        sums: dict[str, Any] = {name: _added(a, b) for (name, a), b in pairs}
        return ScoreSums(**sums)

    def means(self) -> dict[str, float | None]:
        """``positive_score`` and ``negative_score``, 0..1; None without any such entry."""
        return {
            "positive_score": self.positive / self.num_positive if self.num_positive else None,
            "negative_score": self.negative / self.num_negative if self.num_negative else None,
        }

    def recorded(self) -> Scores:
        """What a record keeps."""
        return Scores(
            positives=self.positive_bins,
            negatives=self.negative_bins,
            positive_sums=(self.positive, self.positive_squares),
            negative_sums=(self.negative, self.negative_squares),
        )


def sums_of(positive: Tensor, negative: Tensor) -> ScoreSums:
    """Of the scores (0..1, float64) of one image's positive entries [P] and negative ones [Q]."""
    return ScoreSums(
        float(positive.sum()),
        positive.numel(),
        float(negative.sum()),
        negative.numel(),
        float(positive.square().sum()),
        float(negative.square().sum()),
        _bins(positive),
        _bins(negative),
    )


def _bins(scores: Tensor) -> tuple[int, ...]:
    """A score of 1 is in the last bin."""
    positions = (scores * BINS).to(torch.int64).clamp_(0, BINS - 1)
    return tuple(torch.bincount(positions, minlength=BINS).tolist())


def _added(a: Any, b: Any) -> Any:
    return tuple(x + y for x, y in zip(a, b, strict=True)) if isinstance(a, tuple) else a + b
