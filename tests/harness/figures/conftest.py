"""Folders of results that records are written to."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def results(tmp_path: Path, empty_folders: None) -> Path:
    """The results folder that commands read; nothing is in it."""
    return tmp_path / "results"
