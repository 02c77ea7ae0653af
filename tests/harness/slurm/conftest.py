"""A Slurm of stand-ins."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.squeue import Programs


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Slurm's programs, which say what a test wants."""
    return Programs.install(tmp_path / "slurm", monkeypatch)
