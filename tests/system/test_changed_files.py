"""Weights that are not those of their run, through the command."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.workplace import make_workplace

RUN = ("run", "table2/L6", "--profile", "tiny")


@pytest.mark.slow
def test_run_gives_no_record_of_weights_that_another_run_made(tmp_path: Path) -> None:
    place = make_workplace(tmp_path, iterations=4)
    for ref in ("table2/focal", "table2/L6"):
        place.harness("run", ref, "--profile", "tiny")
    mine, other = place.run_dir(), place.run_dir("table2/focal")
    shutil.copy(other.final, mine.final)
    shutil.rmtree(mine.root / "evals")
    said = place.harness(*RUN, code=1)
    assert "weights of another training" in said
    assert "Traceback" not in said
    assert not list(mine.root.glob("evals/*/record.json"))
