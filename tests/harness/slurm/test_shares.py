"""One limit over all arrays of a user, and runs spread over clusters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.slurm.shares import Place, spread, throttles


@pytest.mark.parametrize(
    ("parallel", "arrays", "expected"),
    [
        (8, {"1": 12}, {"1": 8}),
        (8, {"1": 3}, {"1": 3}),
        (8, {}, {}),
        (8, {"1": 0, "2": 4}, {"2": 4}),
        (8, {"1": 12, "2": 12}, {"1": 4, "2": 4}),
        # One each; of six more, 6 * 29 / 30 = 5.8 and 0.2: five, and the largest remainder gets the sixth.
        (8, {"1": 30, "2": 2}, {"1": 7, "2": 1}),
        # Equal remainders: the first.
        (3, {"1": 5, "2": 5}, {"1": 2, "2": 1}),
        (2, {"1": 5, "2": 5, "3": 5}, {"1": 1, "2": 1, "3": 1}),
        (10, {"1": 4, "2": 6}, {"1": 4, "2": 6}),
    ],
)
def test_throttles_share_one_limit_among_arrays(
    parallel: int, arrays: dict[str, int], expected: dict[str, int]
) -> None:
    assert throttles(parallel, arrays) == expected


@given(st.integers(1, 60), st.lists(st.integers(0, 40), max_size=12))
def test_throttles_use_all_that_is_allowed_and_no_more(parallel: int, left: list[int]) -> None:
    arrays = {str(index): count for index, count in enumerate(left)}
    shares = throttles(parallel, arrays)
    living = [count for count in left if count]
    assert all(1 <= shares[job] <= arrays[job] for job in shares)
    assert len(shares) == len(living)
    assert sum(shares.values()) == min(sum(living), max(parallel, len(living)))


def test_throttles_refuse_a_limit_that_lets_nothing_run() -> None:
    with pytest.raises(ValueError, match="parallel is 0"):
        throttles(0, {"1": 2})


def test_spread_fills_the_cluster_where_the_fewest_wait_for_their_turn() -> None:
    places = [Place("a", 4), Place("b", 2)]
    # a 0/4 and b 0/2 are equal: the first named. Then b 0/2, a 1/4, a 2/4 = b 1/2: a again, ...
    assert spread([*"123456"], places) == {"a": [*"1346"], "b": [*"25"]}


def test_spread_counts_what_is_queued_already() -> None:
    assert spread([1, 2, 3], [Place("a", 4, queued=8), Place("b", 4)]) == {"a": [], "b": [1, 2, 3]}


def test_spread_gives_no_cluster_more_than_it_has_room_for() -> None:
    found = spread([*range(9)], [Place("a", 100, room=2), Place("b", 1, queued=50, room=3)])
    assert found == {"a": [0, 1], "b": [2, 3, 4]}
    assert spread([1], [Place("a", 1, room=0)]) == {"a": []}


def test_spread_without_limits_takes_all() -> None:
    found = spread([*range(50)], [Place("a", 3), Place("b", 7)])
    assert sorted(found["a"] + found["b"]) == [*range(50)]
    assert len(found["a"]) == 15
