"""Run folders that ``harness run --fresh`` moved aside. They are kept, never counted, and never resumed."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from detector.runs.folder import RunDir

RUN_FOLDER: Final = "[0-9a-f]" * 16  # as a pattern: a training's id; a replaced folder's name is longer
_MARK: Final = ".replaced-"


def record_files(runs: Path) -> list[Path]:
    """The records of all runs, by path; none of replaced ones."""
    return sorted(runs.glob(f"{RUN_FOLDER}/evals/*/record.json"))


def replace_run(run: RunDir) -> Path:
    """Move a run's folder to ``<id>.replaced-<time>`` (UTC) beside it. Returns the new path.

    Raises BlockingIOError where a process of this machine trains or evaluates there.
    """
    time = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    target = run.root.with_name(f"{run.root.name}{_MARK}{time}")
    number = 1
    while target.exists():
        number += 1
        target = run.root.with_name(f"{run.root.name}{_MARK}{time}-{number}")
    with run.lock():
        os.rename(run.root, target)
    return target


def replaced_folders(runs: Path) -> list[Path]:
    """The folders that were moved aside, by name."""
    return sorted(path for path in runs.glob(f"{RUN_FOLDER}{_MARK}*") if path.is_dir())
