"""Each pair of docs/identity.md, trained: one id, and weights as far apart as the page says; the page is the table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.identity.pairs import PAGE, PAIRS, Pair, kind_of, page
from tests.identity.trials import Bench, difference


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(Path(tmp_path_factory.mktemp("identity")))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)


@pytest.mark.slow
@pytest.mark.parametrize("pair", [pytest.param(pair, id=pair.what) for pair in PAIRS if pair.trial])
def test_a_pair_of_runs_is_as_equal_as_the_page_says(bench: Bench, pair: Pair) -> None:
    assert pair.trial is not None
    one, other = pair.trial(bench)
    assert kind_of(difference(one, other)) in pair.bits


def test_a_pair_is_tried_unless_the_page_says_that_it_is_not() -> None:
    assert all((pair.trial is None) == (pair.bits == ("untested here",)) for pair in PAIRS)


def test_the_page_is_what_the_table_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.identity.pairs"
