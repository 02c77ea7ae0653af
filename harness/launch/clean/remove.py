"""Removes what ``harness clean`` found, run by run under the run's lock."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from itertools import groupby
from pathlib import Path

from detector.runs.folder import RunDir
from harness.launch.clean.files import Item, find_items
from harness.launch.clean.finished import RunsFolder
from harness.slurm.submissions import submission_lock, submissions_folder


def remove(runs: Path, items: Sequence[Item], *, replaced: bool = False) -> list[Item]:
    """Remove them, but not what is of use again by now. Returns what was removed.

    Raises PermissionError for a file of another user.
    """
    removed: set[Item] = set()
    by_run = sorted(items, key=lambda item: item.run or "")
    with ExitStack() as stack:
        if submissions_folder(runs).is_dir():  # nobody reserves runs, or takes a snapshot into use, meanwhile
            stack.enter_context(submission_lock(runs))
        now = {(item.kind, item.path) for item in find_items(RunsFolder(runs), replaced=replaced)}
        for name, group in groupby(by_run, key=lambda item: item.run):
            with ExitStack() as of_run:
                if name is not None and (runs / name).is_dir():
                    try:
                        of_run.enter_context(RunDir(runs / name).lock(wait=lambda: False))
                    except BlockingIOError:  # somebody has just begun to work on it
                        continue
                for item in group:
                    if (item.kind, item.path) in now:
                        _remove(item.path)
                        removed.add(item)
    _remove_empty(runs, removed)
    return [item for item in items if item in removed]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)  # which follows no link
    else:
        path.unlink(missing_ok=True)


def _remove_empty(runs: Path, removed: Iterable[Item]) -> None:
    """Folders in which nothing is left."""
    for folder in {item.path.parent for item in removed} - {runs}:
        with suppress(OSError):
            folder.rmdir()
