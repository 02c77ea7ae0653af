"""Figures of a record's scores, against scores that were counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from detector.runs.findings import Scores
from detector.runs.record import Record
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve
from harness.store.score_figures import score_figures
from support.records import record_of

BINS = 20


@pytest.fixture(scope="module")
def record() -> Record:
    registry = Registry()
    return record_of(eval_job(resolve(registry, "table3/dr", registry.profile("tiny")), 0))


def scores_of(positives: np.ndarray, negatives: np.ndarray) -> Scores:
    def sums(values: np.ndarray) -> tuple[float, float]:
        return float(values.sum()), float((values**2).sum())

    def counts(values: np.ndarray) -> tuple[int, ...]:
        return tuple(np.histogram(values, BINS, (0, 1))[0].tolist())

    return Scores(
        positives=counts(positives),
        negatives=counts(negatives),
        positive_sums=sums(positives),
        negative_sums=sums(negatives),
    )


def test_figures_of_a_spread_are_those_of_its_scores(record: Record) -> None:
    rng = np.random.default_rng(0)
    positives, negatives = rng.uniform(0, 1, 500), rng.uniform(0, 1, 5000) ** 8
    figures = score_figures(replace(record, scores=scores_of(positives, negatives)))
    assert figures["score_deviation_ratio"] == pytest.approx(positives.std() / negatives.std())
    entries = np.concatenate([positives, negatives])
    assert figures["low_score_share"] == pytest.approx((entries < 0.05).mean())
    shares = np.histogram(negatives, BINS, (0, 1))[0] / len(negatives)
    shares = shares[shares > 0]
    assert figures["negative_evenness"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()) / BINS)


@pytest.mark.parametrize(("values", "evenness"), [((np.arange(BINS) + 0.5) / BINS, 1.0), (np.full(7, 0.01), 1 / BINS)])
def test_evenness_is_1_for_the_same_number_in_each_bin_and_least_for_one_bin(
    record: Record, values: np.ndarray, evenness: float
) -> None:
    figures = score_figures(replace(record, scores=scores_of(np.array([0.5, 0.7]), values)))
    assert figures["negative_evenness"] == pytest.approx(evenness)


def test_a_record_of_format_1_gives_the_gap_of_its_means_alone(record: Record) -> None:
    means = replace(record, metrics={"positive_score": 0.75, "negative_score": 0.25})
    assert score_figures(means) == {"foreground_gap": 0.5}
    assert score_figures(replace(record, metrics={"positive_score": None, "negative_score": 0.25})) == {}


def test_nothing_is_said_of_negatives_that_are_all_alike(record: Record) -> None:
    same = scores_of(np.array([0.5, 0.7]), np.zeros(4))
    assert "score_deviation_ratio" not in score_figures(replace(record, scores=same))


def test_a_share_is_left_out_where_a_bin_lies_on_both_sides_of_its_bound(record: Record) -> None:
    coarse = Scores(positives=(1, 1), negatives=(2, 0), positive_sums=(1.0, 0.7), negative_sums=(0.2, 0.1))
    assert "low_score_share" not in score_figures(replace(record, scores=coarse))
