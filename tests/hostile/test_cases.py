"""Each case of the list: the right answer, the invariant, and nothing changed beside the named output.

Every tenth case is run with the fast tests, all others with the slow ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.hostile.areas import CASES
from tests.hostile.case import Case, run_case
from tests.hostile.invariant import BrokenInvariantError

FAST: Final = 10


def _parameter(i: int, case: Case) -> object:
    return pytest.param(case, id=case.id, marks=[] if i % FAST == 0 else pytest.mark.slow)


@pytest.mark.filterwarnings("ignore")  # a warning is an answer that a user may get
@pytest.mark.parametrize("case", [_parameter(i, case) for i, case in enumerate(CASES)])
def test_a_case_is_answered_rightly(case: Case, tmp_path: Path) -> None:
    try:
        run_case(case, tmp_path)
    except BrokenInvariantError as error:
        pytest.fail(str(error))


def test_no_two_cases_have_one_name() -> None:
    assert len({case.id for case in CASES}) == len(CASES)
