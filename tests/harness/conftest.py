"""Fixtures shared by the tests of the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.exports import train_row
from tests.workplace import Workplace


@pytest.fixture
def empty_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was run before."""
    monkeypatch.setenv("HARNESS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HARNESS_RESULTS", str(tmp_path / "results"))
    monkeypatch.delenv("HARNESS_DATA", raising=False)


@pytest.fixture(scope="session")
def trained_row(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """Of several seconds, hence once for all files of a process; tests work in copies of it."""
    return train_row(tmp_path_factory.mktemp("server"))
