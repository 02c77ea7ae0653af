"""Sums and counts of scores, against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from detector.evaluation.score_sums import ScoreSums, sums_of


def test_scores_are_counted_in_bins_of_equal_width() -> None:
    sums = sums_of(torch.tensor([0.0, 0.004, 0.5, 1.0], dtype=torch.float64), torch.tensor([0.25]).double())
    scores = sums.recorded()
    assert {i: count for i, count in enumerate(scores.positives) if count} == {0: 2, 50: 1, 99: 1}
    assert {i: count for i, count in enumerate(scores.negatives) if count} == {25: 1}
    assert scores.positive_sums == pytest.approx((1.504, 1.250016))
    assert scores.negative_sums == (0.25, 0.0625)
    assert len(scores.positives) == len(scores.negatives) == 100


def test_sums_of_images_are_added_bin_by_bin() -> None:
    one = sums_of(torch.tensor([0.5]).double(), torch.zeros(0).double())
    other = sums_of(torch.tensor([0.5, 0.75]).double(), torch.tensor([0.125]).double())
    both = one + other
    assert both == sums_of(torch.tensor([0.5, 0.5, 0.75]).double(), torch.tensor([0.125]).double())
    assert both.means() == {"positive_score": 1.75 / 3, "negative_score": 0.125}
    assert ScoreSums().means() == {"positive_score": None, "negative_score": None}
