"""What ``harness clean`` finds, kind by kind: each thing with the space that it takes. Nothing is removed here."""

from __future__ import annotations

import re
import stat
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from detector.runs.folder import RunDir, is_locked
from detector.storage.outputs import leaves
from detector.storage.staging import ABANDONED
from harness.code.snapshot import PACKAGES
from harness.folders import may_write
from harness.launch.clean.finished import RunsFolder
from harness.launch.lease import launchers_folder
from harness.slurm.submissions import Submission, transport_folder
from harness.store.cancelled import cancelled_folder
from harness.store.replaced import replaced_folders

Kind = Literal[
    "code snapshots",
    "files of submissions",
    "checkpoints before the last",
    "TensorBoard pieces",
    "files of launchers",
    "half-written files",
    "notes of cancelled runs",
    "replaced runs",
]
SNAPSHOT_SECONDS = 3600.0  # within which a command that has just taken a snapshot submits its runs
NOTE_SECONDS = 86_400.0
_SNAPSHOT = re.compile(r"[0-9a-f]{64}")
_CHECKPOINT = re.compile(r"\d{7,}\.pt")
_NOTE = re.compile(r"[0-9a-f]{16}(?:\.json)?")
_LAUNCHERS = re.compile(r".+(?:_log\.(?:out|err)|_(?:submitted|result)\.pkl|_submission\.sh)|task-\d+\.pkl")
_OF_ELEMENT = re.compile(r"task-(?P<task>\d+)\..+|\d+(?:_(?P<index>\d+))?_(?:\d+_)?(?:log|submitted|result)\..+")


@dataclass(frozen=True)
class Item:
    """One file or folder that can go. run: whose it is; None where it is of several or of none."""

    kind: Kind
    path: Path
    files: int
    bytes: int
    run: str | None = None


def find_items(folder: RunsFolder, *, wanted: Collection[str] | None = None, replaced: bool = False) -> list[Item]:
    """What can go. wanted: ids of runs; only what is theirs alone. None: of all runs, and what is of none.

    replaced: also folders that ``harness run --fresh`` moved aside, with the weights and records in them.
    """
    found = list(_paths(folder, None if wanted is None else set(wanted), replaced=replaced))
    items = [_item(kind, path, run) for kind, path, run in found if _is_ours(folder.runs, path)]
    return [item for item in items if item.files]


def _paths(folder: RunsFolder, wanted: set[str] | None, *, replaced: bool) -> Iterator[tuple[Kind, Path, str | None]]:
    runs = [run for name, run in folder.finished.items() if wanted is None or name in wanted]
    for run in runs:
        yield from ((kind, path, run.root.name) for kind, path in _of_run(run))
    for submission in folder.submissions:
        if folder.is_over(submission) and (wanted is None or wanted.issuperset(submission.runs)):
            yield from (("files of submissions", path, None) for path in _of_submission(folder, submission))
    if replaced:
        for path in replaced_folders(folder.runs):
            train_id = path.name.partition(".")[0]
            if (wanted is None or train_id in wanted) and not is_locked(RunDir(path)):
                yield "replaced runs", path, train_id
    if wanted is None:
        yield from (("code snapshots", path, None) for path in _snapshots(folder))
        yield from (("notes of cancelled runs", path, None) for path in _notes(folder.runs))


def _of_run(run: RunDir) -> Iterator[tuple[Kind, Path]]:
    """Of a finished run: never its records, final weights, job, log or metrics."""
    for path in sorted(run.checkpoints.glob("*.pt")):
        if _CHECKPOINT.fullmatch(path.name):
            yield "checkpoints before the last", path
    # An earlier version began a file at each start; metrics.jsonl has all the numbers.
    pieces = sorted(run.tensorboard.glob("events.out.tfevents.*"))
    if len(pieces) > 1:
        yield from (("TensorBoard pieces", path) for path in pieces)
    for path in sorted(run.submitit.glob("*")):
        if _LAUNCHERS.fullmatch(path.name):
            yield "files of launchers", path
    for place in (run.root, run.checkpoints, *run.root.glob("evals/*")):
        yield from (("half-written files", path) for path in sorted(place.glob(ABANDONED)))


def _of_submission(folder: RunsFolder, submission: Submission) -> Iterator[Path]:
    """The folder of a submission whose runs are all done; of one with other runs, what belongs to those that are."""
    place = transport_folder(folder.runs, submission.token)
    if not folder.unfinished(submission.runs):
        yield place
        return
    for path in sorted(place.glob("*")):
        match = _OF_ELEMENT.fullmatch(path.name)
        index = int(match["task"] or match["index"] or 0) if match else len(submission.runs)
        if index < len(submission.runs) and submission.runs[index] in folder.finished:
            yield path


def _snapshots(folder: RunsFolder) -> Iterator[Path]:
    """Copies of the code that no job will start from."""
    used = {item.code for item in folder.submissions if not folder.is_over(item)}
    for path in sorted((folder.runs / "code").glob("*")):
        if not _SNAPSHOT.fullmatch(path.name) or path.name in used or path.is_symlink() or not path.is_dir():
            continue
        of_code = {child.name for child in path.iterdir()} <= set(PACKAGES)
        if of_code and time.time() - path.stat().st_mtime > SNAPSHOT_SECONDS:
            yield path


def _notes(runs: Path) -> Iterator[Path]:
    """Notes for launchers, once none is at work."""
    if any(launchers_folder(runs).glob("*.json")):
        return
    for path in sorted(cancelled_folder(runs).glob("*")):
        if _NOTE.fullmatch(path.name) and time.time() - path.lstat().st_mtime > NOTE_SECONDS:
            yield path


def _is_ours(runs: Path, path: Path) -> bool:
    """Whether it is there itself, below the runs folder, not through a link, and this user may remove it."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    inside = path.absolute().parents[: len(path.absolute().parts) - len(runs.absolute().parts) - 1]
    plain = stat.S_ISREG(mode) or stat.S_ISDIR(mode)
    linked = any(place.is_symlink() for place in inside)
    return plain and not linked and not leaves(runs, path) and may_write(path.parent)


def _item(kind: Kind, path: Path, run: str | None) -> Item:
    files = (
        [found for found in path.rglob("*") if found.is_symlink() or not found.is_dir()] if path.is_dir() else [path]
    )
    return Item(kind, path, len(files), sum(_size(file) for file in files), run)


def _size(path: Path) -> int:
    """As the disk counts it."""
    try:
        return path.lstat().st_blocks * 512
    except OSError:  # gone meanwhile
        return 0
