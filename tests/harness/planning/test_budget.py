"""What a budget buys: power from the tests of the verdicts, exact costs, and choices as good as a full search's."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest

from harness.planning.budget import PriceList, parse_budget, pool_of
from harness.planning.rows import row_runs
from harness.planning.seed_choice import choose, cost, least_seeds
from harness.planning.selection import Selection
from harness.registry.load import Registry
from harness.registry.resolve import eval_job, resolve
from harness.verdicts.estimates import POWER, detection_power, seeds_needed
from harness.verdicts.power import Degrees, Line, Test, Wanted, claim_power, degrees_of_freedom, power_of
from tests.command import error, invoke
from tests.harness.planning.test_costs import record_of

pytestmark = pytest.mark.usefixtures("empty_folders")
PROJECT = Path(__file__).resolve().parents[3]
ALPHA = 0.01


def line(name: str, training: str | None = None, pool: str | None = "p") -> Line:
    return Line((name,), training or name, pool)


A, B, C, D = (line(name) for name in "ABCD")


def greater(claim_id: str, *pairs: tuple[Line, Line], effect: float = 1.0, sd: float = 0.5) -> Wanted:
    return Wanted(claim_id, tuple(Test(a, b, (effect,), sd) for a, b in pairs))


def by_trainings(lines: tuple[Line, ...], seed: int) -> float:
    """A training takes 10 hours and each evaluation one."""
    return 10.0 + len(lines) if lines else 0.0


def test_degrees_of_freedom_count_each_training_once() -> None:
    other = line("A2", training="A")
    collapsed = line("X", pool=None)
    assert degrees_of_freedom({A: 3, other: 5, B: 2, C: 1, collapsed: 9}) == {"p": Degrees(3, 4 + 1 + 0, 1)}


@pytest.mark.parametrize("n", [2, 3, 7])
def test_power_is_that_of_the_statistics_for_equal_arms(n: int) -> None:
    claim = greater("c", (A, B))
    seeds = {A: n, B: n, C: n}
    power = claim_power(claim, seeds, degrees_of_freedom(seeds), ALPHA)
    expected = detection_power(1.0, 0.5 * 2**0.5, n, alpha=ALPHA, arms=1, num_rows=3 - 1)
    assert power == pytest.approx(expected)


def test_power_counts_what_rows_of_one_seed_have_in_common() -> None:
    seeds = {A: 3, B: 3, C: 3}
    claim = Wanted("c", (Test(A, B, (1.0,), 0.5, 0.8),))
    power = claim_power(claim, seeds, degrees_of_freedom(seeds), ALPHA)
    assert power == pytest.approx(detection_power(1.0, (2 * 0.2) ** 0.5 * 0.5, 3, alpha=ALPHA, arms=1, num_rows=2))
    many = {A: 3, B: 4} | {line(str(i)): 3 for i in range(20)}  # what one seed has in common is nearly known
    even = power_of(claim.tests[0], {**many, B: 3}, degrees_of_freedom({**many, B: 3}), ALPHA)
    assert power_of(claim.tests[0], many, degrees_of_freedom(many), ALPHA) < even  # B's fourth seed has its own level
    other = Line(("X",), "X", "q")
    two = Wanted("c", (Test(A, other, (1.0,), 0.5, 0.5),))
    assert claim_power(two, {A: 4, other: 4}, degrees_of_freedom({A: 4, other: 4}), ALPHA) == pytest.approx(
        detection_power(1.0, 0.5, 4, alpha=ALPHA, arms=1, num_rows=1)
    )


def test_power_of_several_tests_is_a_lower_bound_of_all() -> None:
    claim = greater("c", (A, B), (C, B))
    seeds = {A: 5, B: 5, C: 5}
    one = power_of(claim.tests[0], seeds, degrees_of_freedom(seeds), ALPHA)
    assert 0.5 < one < 1
    assert claim_power(claim, seeds, degrees_of_freedom(seeds), ALPHA) == pytest.approx(2 * one - 1)


def test_power_needs_two_seeds_and_equal_ones_of_a_pair() -> None:
    assert claim_power(greater("c", (A, B), effect=99.0), {A: 9, B: 1}, {"p": Degrees(2, 8, 0)}, ALPHA) == 0
    ms = line("A-ms", training="A")
    pair = greater("c", (ms, A), effect=9.0)
    assert claim_power(pair, {A: 5, ms: 4}, {"p": Degrees(1, 4, 0)}, ALPHA) == 0
    seeds = {A: 4, ms: 4, B: 30}  # the differences have degrees of freedom of their own
    assert claim_power(pair, seeds, degrees_of_freedom(seeds), ALPHA) == pytest.approx(
        detection_power(9.0, 0.5 * 2**0.5, 4, alpha=ALPHA, arms=1, num_rows=1)
    )


def test_collapse_takes_one_seed_per_row() -> None:
    claim = Wanted("c", (Test(A, B, (), 0.0),), by_ratio=True)
    assert claim_power(claim, {A: 1, B: 1}, {}, ALPHA) == 1
    assert claim_power(claim, {A: 1}, {}, ALPHA) == 0
    assert least_seeds([claim], {}, by_trainings, ALPHA) == {A: 1, B: 1}


def test_least_seeds_are_those_of_the_statistics_for_one_contrast() -> None:
    n = seeds_needed(1.0, 0.5 * 2**0.5, alpha=ALPHA, arms=1, num_rows=1)
    seeds = least_seeds([greater("c", (A, B))], {}, by_trainings, ALPHA)
    assert seeds is not None
    assert sum(seeds.values()) <= 2 * n
    assert claim_power(greater("c", (A, B)), seeds, degrees_of_freedom(seeds), ALPHA) >= POWER


def test_least_seeds_are_none_where_it_takes_too_many() -> None:
    assert least_seeds([greater("c", (A, B), effect=0.01)], {}, by_trainings, ALPHA) is None


def test_cost_counts_a_shared_training_once() -> None:
    ms = line("A-ms", training="A")
    assert cost({A: 3, ms: 2, B: 1}, by_trainings) == 2 * 12 + 11 + 11


def test_choice_prefers_the_claim_that_shares_rows() -> None:
    claims = [greater("far", (C, D)), greater("one", (A, B)), greater("two", (A, B), effect=0.9)]
    both = least_seeds(claims[1:], {}, by_trainings, ALPHA)
    assert both is not None
    choice = choose(claims, done={}, budget=cost(both, by_trainings), price=by_trainings, alpha=ALPHA)
    assert set(choice.decided) == {"one", "two"}
    assert choice.hours <= cost(both, by_trainings)
    assert [item.id for item in choice.open] == ["far"]
    assert choice.open[0].extra_hours > 0


def test_choice_gives_up_a_claim_that_stands_in_the_way_of_two() -> None:
    e = line("E")
    prices = {A: 2.5, B: 2.5, C: 4.0, D: 2.0, e: 2.0}
    claims = [
        Wanted(name, (Test(a, b, (), 0.0),), by_ratio=True)
        for name, a, b in (("cheap", A, B), ("left", C, D), ("right", C, e))
    ]

    def price(lines: tuple[Line, ...], seed: int) -> float:
        return prices[lines[0]]

    choice = choose(claims, done={}, budget=8.0, price=price, alpha=ALPHA)
    assert (set(choice.decided), choice.hours) == ({"left", "right"}, 8.0)
    assert [(item.id, item.extra_hours) for item in choice.open] == [("cheap", 5.0)]


def test_choice_spends_nothing_on_what_is_done() -> None:
    def price(lines: tuple[Line, ...], seed: int) -> float:
        return 0.0 if set(lines) <= {A, B} and seed < 20 else by_trainings(lines, seed)

    choice = choose([greater("c", (A, B))], done={A: 20, B: 20}, budget=1.0, price=price, alpha=ALPHA)
    assert set(choice.decided) == {"c"}
    assert choice.hours == 0


def test_choice_names_what_no_seeds_decide() -> None:
    claims = [greater("tiny effect", (A, B), effect=0.001), greater("c", (A, B))]
    choice = choose(claims, done={}, budget=1e9, price=by_trainings, alpha=ALPHA)
    assert choice.beyond == ("tiny effect",)
    assert set(choice.decided) == {"c"}


def brute_force(claims: list[Wanted], prices: dict[Line, float], budget: float, most: int) -> int:
    """Of all numbers of seeds per line up to ``most``: the most claims that one within the budget decides."""
    best = 0
    for counts in itertools.product(range(most + 1), repeat=len(prices)):
        seeds = dict(zip(prices, counts, strict=True))
        if sum(prices[item] * count for item, count in seeds.items()) <= budget:
            degrees = degrees_of_freedom(seeds)
            decided = sum(claim_power(claim, seeds, degrees, ALPHA) >= POWER for claim in claims)
            best = max(best, decided)
    return best


@pytest.mark.parametrize("case", range(8))
def test_choice_decides_as_many_claims_as_a_search_of_all_plans(case: int) -> None:
    rng = random.Random(case)
    prices = dict.fromkeys((A, B, C, D), 1.0)  # rows of one pool have one backbone and one schedule
    pairs = rng.sample(list(itertools.combinations(prices, 2)), 4)
    claims = [
        greater(f"c{i}", pair, effect=rng.choice([0.9, 1.2, 2.0]), sd=rng.choice([0.3, 0.5]))
        for i, pair in enumerate(pairs)
    ]

    def price(lines: tuple[Line, ...], seed: int) -> float:
        return prices[lines[0]]

    found, expected = [], []
    for budget in (5.0, 8.0, 11.0, 14.0):
        choice = choose(claims, done={}, budget=budget, price=price, alpha=ALPHA)
        assert choice.hours <= budget
        assert choice.hours == pytest.approx(sum(prices[item] * n for item, n in choice.seeds.items()))
        degrees = degrees_of_freedom(choice.seeds)
        assert all(
            claim_power(claim, choice.seeds, degrees, ALPHA) >= POWER for claim in claims if claim.id in choice.decided
        )
        found.append(len(choice.decided))
        expected.append(brute_force(claims, prices, budget, most=6))
    assert found == expected


def test_pool_is_named_as_in_the_statistics() -> None:
    registry = Registry(PROJECT / "experiments")
    job = eval_job(resolve(registry, "table2/L6", registry.profile("paper")), 0)
    runs = row_runs({"table2/L6": [record_of(job, train_seconds=1, eval_seconds=1)]}, split="minival")
    assert runs["table2/L6"].pool == pool_of(job.train)


def test_budget_of_the_paper_buys_the_collapses_first() -> None:
    data = json.loads(invoke("plan", "all", "--budget", "400gpuh", "--json").stdout)
    assert set(data["decided"]) == {"all-pairs-collapse", "worst-case-fails"} == set(data["provisional"])
    assert data["spent"] == pytest.approx(3 * 96.7736, abs=0.01)  # three trainings: DR is in both
    assert data["num_runs"] == 3
    assert "harness run table3/all --profile paper --seeds 1" in data["commands"]
    assert data["impossible"].keys() >= {"dr-positives-above-half", "focal-lifts-positives"}


def test_budget_names_what_the_next_claim_costs() -> None:
    data = json.loads(invoke("plan", "all", "--budget", "400gpuh", "--json").stdout)
    following = data["open"][0]
    enough = data["spent"] + following["extra_hours"] + 0.01
    more = json.loads(invoke("plan", "all", "--budget", f"{enough:.2f}gpuh", "--json").stdout)
    assert len(more["decided"]) > len(data["decided"])
    less = json.loads(invoke("plan", "all", "--budget", f"{enough - 0.1:.2f}gpuh", "--json").stdout)
    assert len(less["decided"]) == len(data["decided"])


@pytest.mark.parametrize(
    ("target", "claim", "distance"),
    [("table3/neg-only", "dr-beats-neg-only", 0.4), ("table2/rho0.5", "quadratic-like-logistic", 0.5 - 0.2)],
)
def test_budget_reckons_with_holm_and_the_distance_to_the_margin(target: str, claim: str, distance: float) -> None:
    data = json.loads(invoke("plan", target, "--budget", "1gpuh", "--json").stdout)
    (found,) = [item for item in data["open"] if item["id"] == claim]
    assert found["seeds"] == seeds_needed(distance, 0.2 * 2**0.5, alpha=0.05 / 22, arms=1, num_rows=1)


def test_rows_that_collapse_stay_out_of_the_pool() -> None:
    selection = Selection("all", "paper", [], None)
    prices = PriceList(selection, selection.registry.claims)
    assert prices.by_ref["table3/all"].pool is None
    assert prices.by_ref["ablations/worst-case"].pool is None
    assert prices.by_ref["table3/dr"].pool == "resnet50/90000, dr"
    assert prices.by_ref["table2/focal"].pool == "resnet50/90000, focal"


def test_budget_decides_everything_that_can_be_with_enough() -> None:
    data = json.loads(invoke("plan", "all", "--budget", "20000gpuh", "--json").stdout)
    assert len(data["decided"]) + len(data["impossible"]) == 22
    assert data["open"] == []
    assert min(data["decided"].values()) >= POWER
    assert data["spent"] == pytest.approx(sum(item["hours"] for item in data["lines"]))
    rows = {ref: item["seeds"] for item in data["lines"] for ref in item["refs"]}
    assert rows["table4/dr-r101-ms"] == rows["table4/dr-r101"]  # compared seed by seed
    text = invoke("plan", "all", "--budget", "20000gpuh").stdout
    assert "stable-in-h-neg: 8" in text  # its power, in percent
    assert "To type:" in text


def test_budget_knows_the_scale_and_its_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_RESULTS", str(PROJECT / "results"))
    text = invoke("plan", "all", "--profile", "tiny", "--budget", "5cpuh").stdout
    assert "slim: measured (" in text
    assert "recorded in the results folder" in text
    assert "Not decidable at this profile at all: dr-beats-focal-by-a-point, stable-in-h-neg" in text
    assert "give the budget in cpuh" in error("plan", "all", "--profile", "tiny", "--budget", "5gpuh")


def test_budget_without_any_speed_buys_nothing() -> None:
    data = json.loads(invoke("plan", "all", "--profile", "tiny", "--budget", "5cpuh", "--json").stdout)
    assert data["decided"] == {}
    assert "the cost of table1/hp-e_hn-e is unknown" in data["impossible"]["dr-beats-focal"]


@pytest.mark.parametrize("text", ["400", "400h", "0gpuh", "-3gpuh", "gpuh", "400 gpuh"])
def test_budget_that_is_none_is_refused(text: str) -> None:
    assert "--budget takes device-hours such as 400gpuh" in error("plan", "all", "--budget", text)


def test_budget_refuses_what_it_chooses_itself() -> None:
    assert parse_budget("1.5gpuh") == (1.5, "GPU")
    assert "leave --seeds" in error("plan", "all", "--budget", "400gpuh", "--seeds", "3")
    assert "decide no claim about table2" in error("plan", "table2", "--profile", "smoke", "--budget", "4gpuh")
