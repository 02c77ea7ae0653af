"""What the spread of a test set's scores says (section 4.3, Fig. 4), as numbers that claims can speak of."""

from __future__ import annotations

import math

from detector.runs.findings import Scores
from detector.runs.record import Record

LOW = 0.05  # an "extremely low" score, declared before any result was seen


def score_figures(record: Record) -> dict[str, float]:
    """Figures of a record's scores; those that it cannot give are left out (format 1 has the two means only).

    foreground_gap: mean score of the positive entries minus that of the negative ones. score_deviation_ratio: standard
    deviation of the positives' scores over that of the negatives'. low_score_share: share of all entries with a score
    below ``LOW``. negative_evenness: how evenly the negatives' scores fill 0..1: exp(entropy over the bins) over the
    number of bins, 1 for the same number in each, 1 / bins for all in one. All are 0..1 but the ratio and the gap.
    """
    figures = {}
    positive, negative = record.metrics.get("positive_score"), record.metrics.get("negative_score")
    if positive is not None and negative is not None:
        figures["foreground_gap"] = positive - negative
    if record.scores is not None and any(record.scores.positives) and any(record.scores.negatives):
        figures |= _of_spread(record.scores)
    return figures


def _of_spread(scores: Scores) -> dict[str, float]:
    figures = {}
    negatives = _deviation(scores.negatives, scores.negative_sums)
    if negatives > 0:
        figures["score_deviation_ratio"] = _deviation(scores.positives, scores.positive_sums) / negatives
    entries = [a + b for a, b in zip(scores.positives, scores.negatives, strict=True)]
    low = LOW * len(entries)
    if low == round(low):  # else a bin lies on both sides
        figures["low_score_share"] = sum(entries[: round(low)]) / sum(entries)
    shares = [count / sum(scores.negatives) for count in scores.negatives if count]
    entropy = -math.fsum(share * math.log(share) for share in shares)
    figures["negative_evenness"] = math.exp(entropy) / len(scores.negatives)
    return figures


def _deviation(counts: tuple[int, ...], sums: tuple[float, float]) -> float:
    number = sum(counts)
    return math.sqrt(max(0.0, sums[1] / number - (sums[0] / number) ** 2))
