"""Verdicts on cells and claims, with runs written by hand."""

from __future__ import annotations

import msgspec
import pytest
from scipy import stats

from harness.registry.claims import Claim, Contrast
from harness.verdicts.judge import ClaimVerdict, judge_cell, judge_claims
from harness.verdicts.runs import ProfileRuns, RowRuns
from harness.verdicts.sequential import levels_of_looks

SD = {"AP": 1.0, "positive_score": 0.01}


def row(
    ref: str,
    *values: float,
    metric: str = "AP",
    pool: str = "r50",
    ids: str | None = None,
    family: str = "",
    first_seed: int = 0,
) -> RowRuns:
    """One run per value; ``ids`` names the training (default: the row's own)."""
    return RowRuns(
        ref=ref,
        pool=pool,
        seeds=tuple(range(first_seed, first_seed + len(values))),
        family=family,
        runs=tuple({metric: value} for value in values),
        train_ids=tuple(f"{ids or ref}-{seed}" for seed in range(len(values))),
    )


def rows(*given: RowRuns) -> dict[str, RowRuns]:
    return {item.ref: item for item in given}


def greater(name: str = "claim", *pairs: tuple[str, str], published: float | None = 1.0) -> Claim:
    contrasts = tuple(Contrast(a, b) for a, b in pairs or [("t/a", "t/b")])
    return Claim(
        id=name,
        text="a is better",
        where="§0",
        metric="AP",
        kind="greater",
        contrasts=contrasts,
        published=published,
        decidable_in=("paper", "tiny"),
        reasons={"small": "too small"},
    )


def judge(claim: Claim, *given: RowRuns, profile: str = "tiny") -> ClaimVerdict:
    return judge_claims([claim], ProfileRuns(rows(*given), SD), profile)[0]


# Pool and collapse


def test_profile_runs_pools_each_training_once_when_rows_share_it() -> None:
    shared = [row("table1/x", 10, 12, ids="same"), row("table2/x", 10, 12, ids="same")]
    found = ProfileRuns(rows(*shared, row("table2/y", 10, 16)), SD).blocks("table2/x", "AP")
    assert found is not None
    assert (found.df_within, found.num_rows) == (2, 2)  # counted twice it would be (3, 3)
    spread = ProfileRuns(rows(*shared, row("table2/y", 10, 16)), SD).spread("table1/x", "AP")
    assert spread is not None
    assert spread.sd == pytest.approx(((2 + 18) / 2) ** 0.5)


def test_profile_runs_leaves_collapsed_rows_out_of_the_pool() -> None:
    runs = ProfileRuns(rows(row("t/all", 1, 15), row("t/dr", 31, 33), row("t/focal", 30, 32)), SD)
    assert runs.collapsed == {"t/all"}
    spread = runs.spread("t/dr", "AP")
    assert spread is not None
    assert spread.sd == pytest.approx(2**0.5)
    own = runs.spread("t/all", "AP")
    assert own is not None
    assert own.sd == pytest.approx(98**0.5)


def test_profile_runs_pools_within_what_is_alike() -> None:
    """Scores of one loss scatter seven times as far as those of another."""
    wide = [row("t/dr", 0.4, 0.54, family="dr"), row("t/L4", 0.4, 0.54, family="dr")]
    runs = ProfileRuns(rows(*wide, row("t/focal", 0.03, 0.05, family="focal"), row("t/ce", 0.2, family="ce")), {})
    spreads = {ref: runs.spread(ref, "AP") for ref in runs.rows if ref not in runs.collapsed}
    assert {ref: spread and round(spread.sd, 4) for ref, spread in spreads.items()} == {"t/dr": 0.099, "t/L4": 0.099}
    healthy = ProfileRuns(rows(row("t/a", 30, 32, family="dr"), row("t/b", 30, family="focal")), SD)
    borrowed = healthy.spread("t/b", "AP")
    assert borrowed is not None
    assert (borrowed.sd, borrowed.borrowed, borrowed.assumed) == (pytest.approx(2**0.5), True, False)


def test_profile_runs_sees_the_collapsed_one_of_two_rows() -> None:
    assert ProfileRuns(rows(row("t/all", 14), row("t/dr", 32)), SD).collapsed == {"t/all"}


def test_profile_runs_assumes_the_deviation_without_a_second_seed() -> None:
    spread = ProfileRuns(rows(row("t/dr", 32)), SD).spread("t/dr", "AP")
    assert spread is not None
    assert spread.assumed
    assert spread.sd == 1.0
    assert ProfileRuns({}, SD).spread(None, "AP") == spread
    assert ProfileRuns(rows(row("t/dr", 32)), {}).spread("t/dr", "AP") is None


def test_profile_runs_ignores_missing_metrics() -> None:
    partial = RowRuns("t/a", "r50", (0, 1), ({"APL": None}, {"APL": 3.0}), ("x", "y"))
    assert ProfileRuns(rows(partial), SD).values("t/a", "APL") == [3.0]


# Cells


def test_judge_cell_is_pending_without_a_run() -> None:
    verdict = judge_cell("t/a", "AP", 37.4, ProfileRuns({}, SD))
    assert (verdict.outcome, verdict.n, verdict.mean) == ("pending", 0, None)


def test_judge_cell_is_provisional_with_one_seed() -> None:
    verdict = judge_cell("t/a", "AP", 37.4, ProfileRuns(rows(row("t/a", 37.5)), {"AP": 0.05}))
    assert verdict.outcome == "reproduced"  # at twice what is assumed: 0.1 + 1.645 sqrt(2 * 0.01 + 0.01 / 12) = 0.34
    assert verdict.provisional
    assert verdict.difference == pytest.approx(0.1)
    looser = judge_cell("t/a", "AP", 37.4, ProfileRuns(rows(row("t/a", 37.5)), {"AP": 0.1}))
    assert looser.outcome == "consistent"  # 0.1 + 0.47 at twice 0.1 leaves the margin; chance explains 0.1 at its half


def test_judge_cell_is_provisional_with_the_deviation_of_another_loss() -> None:
    runs = ProfileRuns(rows(row("t/a", 37.3, 37.5, 37.7, family="dr"), row("t/b", 36.1, family="focal")), SD)
    assert not judge_cell("t/a", "AP", 37.4, runs).provisional
    assert judge_cell("t/b", "AP", 36.1, runs).provisional


def test_judge_cell_uses_the_measured_deviation_with_its_quantile() -> None:
    runs = ProfileRuns(rows(row("t/a", 37.3, 37.5, 37.7)), SD)
    verdict = judge_cell("t/a", "AP", 37.4, runs)
    expected = stats.t.ppf(0.975, 2) * (0.2**2 * (1 + 1 / 3) + 0.01 / 12) ** 0.5
    assert verdict.half_width == pytest.approx(expected)
    assert not verdict.provisional
    assert verdict.sd == pytest.approx(0.2)


def test_judge_cell_takes_a_collapsed_rows_own_deviation() -> None:
    runs = ProfileRuns(rows(row("t/all", 10, 16), row("t/dr", 37.3, 37.5), row("t/b", 37.0, 37.2)), SD)
    assert judge_cell("t/all", "AP", 12.9, runs).outcome == "consistent"
    tight = ProfileRuns(rows(row("t/all", 13.0), row("t/dr", 37.3, 37.5), row("t/b", 37.0, 37.2)), SD)
    assert judge_cell("t/all", "AP", 12.9, tight).provisional  # another row's deviation stands in


def test_judge_cell_widens_the_margin_for_size_classes() -> None:
    measured = RowRuns("t/a", "r50", (0,), ({"AP": 38.1, "APS": 20.1},), ("x",))
    runs = ProfileRuns(rows(measured), {"AP": 0.06, "APS": 0.06})
    assert judge_cell("t/a", "AP", 37.5, runs).outcome != "reproduced"
    assert judge_cell("t/a", "APS", 19.5, runs).outcome == "reproduced"


# Claims


def test_judge_claims_supports_a_large_difference() -> None:
    a, b = [35.0, 35.2, 35.4], [31.0, 31.2, 31.1]
    verdict = judge(greater(), row("t/a", *a), row("t/b", *b))
    assert verdict.outcome == "supported"
    assert verdict.p_value == pytest.approx(stats.ttest_rel(a, b, alternative="greater").pvalue)
    assert verdict.measured[0].design == "same seeds"


def test_judge_claims_takes_rows_at_different_seeds_as_independent() -> None:
    a, b = [35.0, 35.2, 35.4], [31.0, 31.2, 31.1]
    verdict = judge(greater(), row("t/a", *a), row("t/b", *b, first_seed=7))
    assert verdict.p_value == pytest.approx(stats.ttest_ind(a, b, alternative="greater").pvalue)
    assert verdict.measured[0].design == "independent"


def test_judge_claims_compares_two_losses_at_the_same_seeds() -> None:
    a, b = [35.0, 36.2, 34.4], [31.0, 32.3, 30.3]
    verdict = judge(greater(), row("t/a", *a, family="dr"), row("t/b", *b, family="focal"))
    assert verdict.p_value == pytest.approx(stats.ttest_rel(a, b, alternative="greater").pvalue)
    assert verdict.measured[0].design == "same seeds, two losses"
    other = judge(greater(), row("t/a", *a, pool="r50"), row("t/b", *b, pool="r101"))  # other weights at the same seed
    assert other.p_value == pytest.approx(stats.ttest_ind(a, b, equal_var=False, alternative="greater").pvalue)


def test_judge_claims_contradicts_the_opposite_direction() -> None:
    verdict = judge(greater(), row("t/a", 31.0, 31.2), row("t/b", 35.0, 35.2))
    assert verdict.outcome == "contradicted"


def test_judge_claims_leaves_noise_undecided_and_says_the_seeds() -> None:
    verdict = judge(greater(), row("t/a", 31.0, 33.0), row("t/b", 31.0, 32.0))
    assert verdict.outcome == "undecided"
    assert verdict.seeds is not None
    assert verdict.seeds > 2


def test_judge_claims_decides_nothing_with_one_seed_in_an_arm() -> None:
    verdict = judge(greater(), row("t/a", 90.0), row("t/b", 31.0, 31.1), row("t/c", 60.0, 60.1))
    assert verdict.outcome == "undecided"
    assert "one seed of t/a;" in verdict.reason


def test_judge_claims_names_the_missing_row_and_the_command() -> None:
    verdict = judge(greater(), row("t/a", 31.0, 31.1))
    assert verdict.reason == "no run of t/b; next: harness run t/b --profile tiny"
    assert verdict.measured == ()


def test_judge_claims_needs_every_contrast() -> None:
    claim = greater("claim", ("t/a", "t/x"), ("t/b", "t/x"))
    base = row("t/x", 30.0, 30.2)
    assert judge(claim, base, row("t/a", 35.0, 35.2), row("t/b", 35.0, 35.1)).outcome == "supported"
    assert judge(claim, base, row("t/a", 35.0, 35.2), row("t/b", 30.0, 30.3)).outcome == "undecided"
    assert judge(claim, base, row("t/a", 35.0, 35.2), row("t/b", 25.0, 25.3)).outcome == "contradicted"
    assert judge(claim, base, row("t/a", 35.0, 35.2)).outcome == "undecided"  # the second was not run


def test_judge_claims_corrects_for_every_claim_of_the_profile() -> None:
    clear = rows(row("t/a", 33.1, 34.0), row("t/b", 30.0, 31.0))
    others = [greater(f"other-{i}", ("t/x", "t/y")) for i in range(9)]
    assert judge_claims([greater()], ProfileRuns(clear, SD), "tiny")[0].outcome == "supported"
    crowded = judge_claims([greater(), *others], ProfileRuns(clear, SD), "tiny")[0]
    assert crowded.outcome == "undecided"
    assert crowded.p_value == pytest.approx(10 * stats.ttest_rel([33.1, 34], [30, 31], alternative="greater").pvalue)


def test_judge_claims_counts_only_decidable_claims_in_the_family() -> None:
    clear = rows(row("t/a", 33.0, 34.0), row("t/b", 30.0, 31.0))
    only_paper = msgspec.structs.replace(greater("other"), decidable_in=("paper",), reasons={"tiny": "no"})
    assert judge_claims([greater(), *[only_paper] * 9], ProfileRuns(clear, SD), "tiny")[0].outcome == "supported"


def test_judge_claims_prints_the_difference_where_it_is_not_decidable() -> None:
    verdict = judge(greater(), row("t/a", 31.0, 33.0), row("t/b", 30.0, 31.0), profile="small")
    assert (verdict.outcome, verdict.reason) == ("not decidable here", "too small")
    assert verdict.measured[0].value == pytest.approx(1.5)
    assert verdict.seeds is not None


def test_judge_claims_lends_a_collapsed_row_no_deviation() -> None:
    a, b = [31.0, 31.4, 31.2], [2.0, 9.0, 12.0]
    verdict = judge(greater(), row("t/a", *a), row("t/b", *b), row("t/c", 41.0, 41.1, 41.2, pool="r101"))
    assert verdict.p_value == pytest.approx(stats.ttest_rel(a, b, alternative="greater").pvalue)
    assert verdict.measured[0].design == "same seeds, two losses"


def test_judge_claims_pairs_two_tests_of_the_same_trainings() -> None:
    single = row("t/b", 30.0, 33.0, 36.0, ids="same")
    multi = row("t/a", 31.0, 34.1, 37.05, ids="same")
    verdict = judge(greater(), multi, single)
    assert verdict.outcome == "supported"  # unpaired, a deviation of 3 would hide a difference of 1
    assert verdict.p_value == pytest.approx(
        stats.ttest_rel([31.0, 34.1, 37.05], [30.0, 33.0, 36.0], alternative="greater").pvalue
    )
    assert verdict.seeds is None


def collapse() -> Claim:
    return Claim(
        id="collapse",
        text="a fails",
        where="§0",
        metric="AP",
        kind="collapses",
        contrasts=(Contrast("t/a", "t/b"),),
        decidable_in=("tiny",),
    )


@pytest.mark.parametrize(("ap", "outcome"), [((14.9,), "supported"), ((17.0,), "contradicted"), ((9, 15), "supported")])
def test_judge_claims_decides_a_collapse_by_its_ratio_until_the_third_seed(ap: list[float], outcome: str) -> None:
    verdict = judge(collapse(), row("t/a", *ap), row("t/b", 32.3, 31.0, 32.0))
    assert (verdict.outcome, verdict.provisional, verdict.p_value) == (outcome, True, None)
    assert f"a row has {'one seed' if len(ap) == 1 else '2 seeds'}, and a test takes 3" in verdict.reason


def test_judge_claims_tests_a_collapse_with_more_seeds() -> None:
    sure = judge(collapse(), row("t/a", 3.0, 4.0, 3.5), row("t/b", 32.0, 32.5, 31.8))
    assert (sure.outcome, sure.provisional) == ("supported", False)
    noisy = judge(collapse(), row("t/a", 12.0, 20.0, 12.7), row("t/b", 32.0, 32.5, 31.8))
    assert noisy.outcome == "undecided"  # 14.9 +- 4.4 is not surely below 16.05


def test_judge_claims_sees_no_collapse_below_nothing() -> None:
    assert judge(collapse(), row("t/a", 0.0), row("t/b", 0.0)).outcome == "undecided"


def test_judge_claims_tests_at_the_level_of_a_look() -> None:
    runs = ProfileRuns(rows(row("t/a", 33.1, 34.0), row("t/b", 30.0, 31.0)), SD)
    plain, look, other = (judge_claims([greater()], runs, "tiny", looks)[0] for looks in ((), (2, 3, 5), (3, 5)))
    assert plain.p_value is not None
    assert look.p_value == pytest.approx(plain.p_value * 0.05 / levels_of_looks((2, 3, 5), 0.05)[0])
    assert (other.outcome, other.p_value) == ("undecided", None)
    assert other.reason == "not tested: a row has 2 seeds, and the looks named are at 3, 5"


def test_judge_claims_needs_fewer_seeds_where_the_seed_is_common() -> None:
    bumps = [0.0, 2.0, -2.0]
    base = {ref: [30 + bump + 0.1 * i * (-1) ** k for k, bump in enumerate(bumps)] for i, ref in enumerate("abcd")}
    alike = judge(greater(), *(row(f"t/{ref}", *values) for ref, values in base.items()))
    apart = judge(greater(), *(row(f"t/{r}", *v, first_seed=9 * i) for i, (r, v) in enumerate(base.items())))
    assert alike.seeds == 2
    assert apart.seeds is not None
    assert apart.seeds > 20


def similar(published: float = 0.2) -> Claim:
    return msgspec.structs.replace(greater(published=published), kind="similar", margin=0.5)


@pytest.mark.parametrize(
    ("a", "outcome"),
    [((31.0, 31.02), "supported"), ((33.0, 33.02), "contradicted"), ((29.0, 29.02), "contradicted")],
)
def test_judge_claims_tests_similarity_on_both_sides(a: tuple[float, float], outcome: str) -> None:
    assert judge(similar(), row("t/a", *a), row("t/b", 31.0, 31.04)).outcome == outcome


def test_judge_claims_does_not_take_noise_for_similarity() -> None:
    assert judge(similar(), row("t/a", 30.0, 32.0), row("t/b", 30.5, 31.5)).outcome == "undecided"


@pytest.mark.parametrize(
    ("kind", "values", "outcome"),
    [
        ("above", (0.55, 0.56, 0.57), "supported"),
        ("above", (0.40, 0.41, 0.42), "contradicted"),
        ("above", (0.49, 0.50, 0.52), "undecided"),
        ("below", (0.40, 0.41, 0.42), "supported"),
        ("below", (0.55, 0.56, 0.57), "contradicted"),
    ],
)
def test_judge_claims_compares_a_row_with_a_threshold(kind: str, values: tuple[float, ...], outcome: str) -> None:
    claim = msgspec.convert(
        {"id": "c", "text": "t", "where": "§0", "metric": "positive_score", "kind": kind, "row": "t/a"}
        | {"threshold": 0.5, "decidable_in": ["tiny"]},
        Claim,
    )
    assert judge(claim, row("t/a", *values, metric="positive_score")).outcome == outcome
    single = judge(claim, row("t/a", values[0], metric="positive_score"))
    assert single.outcome == "undecided"


# The struct


BASE = {"id": "c", "text": "t", "where": "§0", "metric": "AP", "decidable_in": ["tiny"]}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "greater"}, "takes contrasts only"),
        ({"kind": "greater", "contrasts": [{"a": "t/a", "b": "t/b"}], "row": "t/a"}, "takes contrasts only"),
        ({"kind": "above", "row": "t/a"}, "takes row and threshold only"),
        ({"kind": "similar", "contrasts": [{"a": "t/a", "b": "t/b"}]}, "a margin belongs to"),
        ({"kind": "greater", "contrasts": [{"a": "t/a", "b": "t/b"}], "reasons": {"tiny": "x"}}, "both decidable"),
    ],
)
def test_claim_rejects_fields_that_its_kind_does_not_read(fields: dict[str, object], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(BASE | fields, Claim)


def test_claim_refs_are_named_once_in_order() -> None:
    assert greater("c", ("t/b", "t/x"), ("t/a", "t/x")).refs() == ("t/b", "t/x", "t/a")
