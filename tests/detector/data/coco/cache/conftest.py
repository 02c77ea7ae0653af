"""A cache of its own for each test, and a small set to keep in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector.data.coco import cache
from detector.data.coco import index as coco
from detector.data.coco.index import read_split
from tests.detector.data.coco.test_index import content, write


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache that keeps the smallest file, however young."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "LEAST_BYTES", 1)
    monkeypatch.setattr(cache, "SETTLED_SECONDS", -1.0)
    cache._tell_once.cache_clear()
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return write(tmp_path / "root", content())


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The splits whose JSON was read."""
    found: list[str] = []

    def counted(root: Path, split: str) -> object:
        found.append(split)
        return read_split(root, split)

    monkeypatch.setattr(coco, "read_split", counted)
    return found
