"""Claims that a difference or a figure lies in an interval."""

from __future__ import annotations

from typing import Any

import pytest
from scipy import stats

from harness.registry.claims import Claim, Contrast
from harness.verdicts.estimates import Estimate
from harness.verdicts.intervals import p_between
from harness.verdicts.judge import ClaimVerdict, judge_claims
from harness.verdicts.runs import ProfileRuns, RowRuns

A, B = "t/a", "t/b"


def claim(**changes: Any) -> Claim:
    fields = {
        "id": "c",
        "text": "about one",
        "where": "§0",
        "metric": "AP",
        "kind": "between",
        "decidable_in": ("tiny",),
    }
    return Claim(**{**fields, "contrasts": (Contrast(A, B),), "low": 0.5, "high": 1.5, **changes})


def row(ref: str, *values: float, metric: str = "AP") -> RowRuns:
    ids = tuple(f"{ref}-{seed}" for seed in range(len(values)))
    return RowRuns(ref, "r50", tuple(range(len(values))), tuple({metric: value} for value in values), ids)


def judge(asked: Claim, *rows: RowRuns) -> ClaimVerdict:
    return judge_claims([asked], ProfileRuns({item.ref: item for item in rows}, {}), "tiny")[0]


def test_p_between_is_two_one_sided_t_tests() -> None:
    within, outside = p_between(Estimate(1.0, 0.2, 4), 0.5, 1.5)
    assert within == pytest.approx(stats.t.sf(2.5, 4))
    assert outside == 1.0
    within, outside = p_between(Estimate(2.5, 0.2, 4), 0.5, 1.5)
    assert within == pytest.approx(stats.t.cdf(5.0, 4))
    assert outside == pytest.approx(2 * stats.t.sf(5.0, 4))


@pytest.mark.parametrize(
    ("ahead", "outcome"), [(1.0, "supported"), (3.0, "contradicted"), (-1.0, "contradicted"), (1.45, "undecided")]
)
def test_a_difference_is_judged_by_its_size_and_not_only_by_its_sign(ahead: float, outcome: str) -> None:
    base = [30.0, 30.1, 29.9, 30.05]
    noise = [0.03, -0.05, 0.06, -0.04]
    ours = [value + ahead + extra for value, extra in zip(base, noise, strict=True)]
    assert judge(claim(), row(A, *ours), row(B, *base)).outcome == outcome


def test_a_figure_of_one_row_can_be_between_bounds() -> None:
    ratio = claim(contrasts=(), row=A, metric="score_deviation_ratio", low=5.0, high=20.0)
    for values, outcome in (((9.0, 10.0, 11.0), "supported"), ((2.0, 2.2, 2.1), "contradicted")):
        assert judge(ratio, row(A, *values, metric="score_deviation_ratio")).outcome == outcome


def test_records_without_scores_cannot_decide_a_claim_about_them() -> None:
    ratio = claim(contrasts=(), row=A, metric="score_deviation_ratio", low=5.0, high=20.0)
    verdict = judge(ratio, row(A, 30.0, 30.1))
    assert verdict.outcome == "not decidable here"
    assert "records of t/a do not say it: those of format 1" in verdict.reason
    assert "no run of t/a" in judge(ratio).reason


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"high": None}, "low and high belong to the kind 'between'"),
        ({"kind": "greater"}, "low and high belong to the kind 'between'"),
        ({"low": 2.0}, "low is 2.0, not below high, 1.5"),
        ({"row": A}, "kind 'between' takes row or contrasts only"),
        ({"contrasts": ()}, "kind 'between' takes row or contrasts only"),
        ({"contrasts": (), "row": A, "threshold": 1.0}, "kind 'between' takes row or contrasts only"),
    ],
)
def test_an_interval_that_says_too_much_or_too_little_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        claim(**changes)
