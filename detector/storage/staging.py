"""Folders that appear whole or not at all, also when two processes make the same one at once."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4


@contextlib.contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """A new folder beside ``target`` that is renamed to it on success and removed on any error.

    Raises OSError where ``target`` has become a non-empty folder in the meantime: the other writer's is kept whole.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.parent / f".{target.name}.{uuid4().hex}.tmp"
    staging.mkdir()
    try:
        yield staging
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
