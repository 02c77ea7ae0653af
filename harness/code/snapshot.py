"""A copy of the code beside the runs, so that what is edited after a submission does not change queued runs."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from detector.storage.staging import staged_folder

PACKAGES = ("detector", "drloss", "experiments", "harness")
SUFFIXES = (".py", ".yaml", ".typed")


def snapshot_id() -> str:
    """The sha256 of the packages' files: their paths and their content."""
    return _identity((name, path.read_bytes()) for name, path in _sources())


def snapshot_folder(runs: Path, identity: str) -> Path:
    """Where the copy lies; to be the first of Python's module path."""
    return runs / "code" / identity


def take_snapshot(runs: Path) -> Path:
    """Copy the packages, once for each content."""
    read = [(name, path, path.read_bytes()) for name, path in _sources()]
    identity = _identity((name, content) for name, _, content in read)
    target = snapshot_folder(runs, identity)
    if target.is_dir():
        return target
    try:
        with staged_folder(target) as folder:
            for name, path, content in read:
                copy = folder / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(content)
                shutil.copystat(path, copy)
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
    """What numba has compiled, so that the first process of each run need not do it again.

    It belongs to a file of the same size and time of change, and to one kind of CPU; elsewhere it is compiled anew.
    """
    for package in PACKAGES:
        folder = Path(str(files(package)))
        for path in folder.rglob("__pycache__/*.nb[ic]"):
            copy = target / package / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError, PermissionError):  # just written anew by another process, or not ours
                shutil.copy2(path, copy)


def _sources() -> list[tuple[str, Path]]:
    """Name below the snapshot and file, in the order of the names."""
    found = []
    for package in PACKAGES:
        folder = Path(str(files(package)))
        paths = (path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())
        found += [(f"{package}/{path.relative_to(folder).as_posix()}", path) for path in paths]
    return sorted(found)
