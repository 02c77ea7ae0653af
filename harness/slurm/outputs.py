"""Output of submitted runs: the files into which Slurm writes what the processes print."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from pathlib import Path

from detector.runs.folder import RunDir
from harness.slurm.submissions import read_submissions, submissions_folder, transport_folder

logger = logging.getLogger(__name__)

_ELEMENT = re.compile(r"(?P<job>\d+)(?:_(?P<index>\d+))?_(?P<rank>\d+)_log\.(?:out|err)")


def submitted_outputs(run: RunDir) -> list[Path]:
    """The output files of a run's processes in all Slurm jobs that it had."""
    runs, folder, found = run.root.parent, submissions_folder(run.root.parent), list[Path]()
    if not folder.is_dir():
        return found
    for token, index in _elements(runs, folder.stat().st_mtime_ns).get(run.root.name, ()):
        printed = transport_folder(runs, token)
        if printed.is_dir():
            found += _by_index(printed, printed.stat().st_mtime_ns).get(index, ())
    return found


@lru_cache(maxsize=64)
def _by_index(folder: Path, changed: int) -> dict[int, list[Path]]:
    """The output files of one submission by array index. changed: as in ``_elements``."""
    found: dict[int, list[Path]] = {}
    for path in folder.glob("*_log.*"):
        match = _ELEMENT.fullmatch(path.name)
        if match:
            found.setdefault(int(match["index"] or 0), []).append(path)
    return found


@lru_cache(maxsize=4)
def _elements(runs: Path, changed: int) -> dict[str, list[tuple[str, int]]]:
    """For each run the (token, array index) of every submission that had it.

    changed: the folder's time of change, so that the submissions are read again only after a change.
    """
    elements: dict[str, list[tuple[str, int]]] = {}
    for submission in read_submissions(runs, damaged=logger.debug):  # whoever asks for states tells it
        for index, name in enumerate(submission.runs):
            elements.setdefault(name, []).append((submission.token, index))
    return elements
