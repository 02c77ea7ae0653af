"""A good document, changed at random: the reader takes it or refuses it by a HarnessError, and nothing else happens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile.invariant import BrokenInvariantError, answer_of
from tests.hostile.mutate import mutated
from tests.hostile.readers import READERS, Reader

FEW: Final = 25
MANY: Final = 150


@pytest.mark.filterwarnings("ignore")  # of Pillow and torch, on what they read
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_only_a_harness_error_leaves_a_reader(
    reader: Reader, examples: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, good = tmp_path_factory.mktemp(reader.name), reader.good()
    for document in good:
        answer_of(_reading(reader, folder, document))

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(draw=st.randoms(use_true_random=False), which=st.integers(0, len(good) - 1))
    def holds(draw: Random, which: int) -> None:
        document = mutated(good[which], reader.kind, draw)
        try:
            answer_of(_reading(reader, folder, document))
        except BrokenInvariantError as error:
            pytest.fail(f"{reader.name}: {error}\n{document[:2000]!r}")

    holds()


def _reading(reader: Reader, folder: Path, document: bytes) -> Callable[[], object]:
    return lambda: reader.read(folder, document)
