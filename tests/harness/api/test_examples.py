"""The examples of ``harness.table`` and its kin, on the committed records; those of ``run`` are in tests/system."""

from __future__ import annotations

from pathlib import Path

import pytest

import harness
from tests.conftest import PROJECT
from tests.examples import run_examples


@pytest.mark.parametrize("name", ["table", "records", "claims", "plan"])
def test_the_example_of_each_function_is_true(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HARNESS_RESULTS", str(PROJECT / "results"))
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    assert run_examples(getattr(harness, name)) > 1
