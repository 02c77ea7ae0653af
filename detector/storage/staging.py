"""Folders that appear whole or not at all, also when two processes make the same one at once. Free of torch."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

ABANDONED = ".*.tmp"  # the names of ``staging_name``
OLD_SECONDS = 3600.0  # nobody writes a small file for so long


def staging_name(target: Path, folder: Path | None = None) -> Path:
    """A hidden name for what will be renamed to ``target``; no other process, here or elsewhere, has the same.

    folder: where it lies, on the disk of ``target``; beside ``target`` if None.
    """
    return (folder or target.parent) / f".{target.name}.{uuid4().hex}.tmp"


@contextlib.contextmanager
def staged_folder(target: Path, *, within: Path | None = None) -> Iterator[Path]:
    """A new folder that is renamed to ``target`` on success and removed on any error.

    within: make it in this folder, on the disk of ``target``, and remove that folder when it is empty; beside
    ``target`` if None. Raises OSError where ``target`` has become a non-empty folder in the meantime: what the other
    process wrote is kept.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = staging_name(target, within)
    staging.mkdir(parents=True)
    try:
        yield staging
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if within is not None:
            with contextlib.suppress(OSError):  # another process has a folder in it
                within.rmdir()


def remove_folder(folder: Path) -> None:
    """Remove a folder that others may be reading. Renamed first, so that they see a whole folder or none."""
    removed = staging_name(folder)
    folder.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove files that killed processes left half written. The caller holds the lock under which they are written.

    Of JSON files, which are small, only those older than ``OLD_SECONDS``: others write them too, without the lock.
    """
    for leftover in folder.glob(ABANDONED):
        with contextlib.suppress(OSError):  # a file server that is away keeps them until the next start
            shared = Path(leftover.stem).stem.endswith(".json")
            if not shared or time.time() - leftover.stat().st_mtime > OLD_SECONDS:
                leftover.unlink()


def remove_abandoned(parent: Path, *, older_than: float) -> None:
    """Remove what killed processes left of the folders that they were making. older_than: seconds."""
    for abandoned in parent.glob(ABANDONED):
        if time.time() - abandoned.stat().st_mtime > older_than:
            shutil.rmtree(abandoned, ignore_errors=True)
