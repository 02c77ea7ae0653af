"""A sample of the cases as processes of their own, under the kernel's limits of time and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.hostile.areas import CASES
from tests.hostile.case import Case, run_case
from tests.hostile.invariant import BrokenInvariantError

PROCESSES: Final = 15
# The ways of these names are commands; readers have no process of their own.
_AREAS: Final = ("detections", "experiments", "options", "sizes", "paths and outputs")
_COMMANDS: Final = [
    case
    for case in CASES
    if case.area in _AREAS or case.name.endswith((", checked", ", copied", ", in a table"))
    if not case.name.endswith(("a name with a zero", "half a surrogate pair"))  # no process can be given these
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.id) for case in _COMMANDS[:: len(_COMMANDS) // PROCESSES][:PROCESSES]]
)
def test_a_case_is_answered_rightly_by_a_process(case: Case, tmp_path: Path) -> None:
    try:
        run_case(case, tmp_path, as_process=True)
    except BrokenInvariantError as error:
        pytest.fail(str(error))
