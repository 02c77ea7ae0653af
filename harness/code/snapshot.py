"""A copy of the code in the runs folder, so that edits after a submission do not change queued runs."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from detector.storage.staging import staged_folder

PACKAGES = ("detector", "drloss", "experiments", "harness")
SUFFIXES = (".py", ".yaml", ".typed")


def snapshot_id() -> str:
    """The sha256 of the packages' files, of their paths and contents."""
    return _identity((name, path.read_bytes()) for name, path in _sources())


def snapshot_folder(runs: Path, identity: str) -> Path:
    """Where the copy is. This folder must come first in Python's module path."""
    return runs / "code" / identity


def take_snapshot(runs: Path) -> Path:
    """Copy the packages, unless there is a copy of the same content. Returns its folder."""
    read = [(name, path.read_bytes()) for name, path in _sources()]
    identity = _identity(read)
    target = snapshot_folder(runs, identity)
    if target.is_dir():
        with suppress(OSError):  # another user's
            os.utime(target)  # 'harness clean' leaves alone what was just taken into use
        return target
    try:
        with staged_folder(target) as folder:
            for name, content in read:
                copy = folder / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(content)
            _copy_kernels(folder)
    except OSError:
        if not target.is_dir():  # else another command has made the same copy in the meantime
            raise
    return target


def _identity(contents: Iterable[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for name, content in contents:
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _copy_kernels(target: Path) -> None:
    """Copy what numba has compiled, so that the first process of each run need not compile it again.

    It is used for the same source, version of numba and kind of CPU, and else compiled again.
    """
    for package in PACKAGES:
        folder = Path(str(files(package)))
        for path in folder.rglob("__pycache__/*.nbc"):
            copy = target / package / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError, PermissionError):  # being replaced, or another user's
                shutil.copy2(path, copy)


def _sources() -> list[tuple[str, Path]]:
    """For each file its name in the snapshot and its path, sorted by name."""
    found = []
    for package in PACKAGES:
        folder = Path(str(files(package)))
        paths = (path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())
        found += [(f"{package}/{path.relative_to(folder).as_posix()}", path) for path in paths]
    return sorted(found)
