"""Where new files go: the user's own folders, never the installed ones."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from detector.errors import UsageError

OWN_EXPERIMENTS = Path("my-experiments")
OWN_CLUSTERS = Path("clusters")


@dataclass(frozen=True)
class Place:
    """A folder, and the shell line without which commands do not see it; None where they already do."""

    folder: Path
    export: str | None


def experiments_place(out: Path | None) -> Place:
    """``out``, else the first own folder of $HARNESS_EXPERIMENTS, else ./my-experiments.

    Raises UsageError where ``out`` is the installed folder.
    """
    installed = Path(str(files("experiments")))
    if out is not None and _same(out, installed):
        raise UsageError(f"{out} is the folder of the paper's own experiments. Give another --out, or leave it out.")
    return _place("HARNESS_EXPERIMENTS", out, OWN_EXPERIMENTS, installed)


def clusters_place(out: Path | None) -> Place:
    """``out``, else the first folder of $HARNESS_CLUSTERS, else ./clusters."""
    return _place("HARNESS_CLUSTERS", out, OWN_CLUSTERS, None)


def _place(variable: str, out: Path | None, default: Path, installed: Path | None) -> Place:
    given = [Path(part) for part in os.environ.get(variable, "").split(os.pathsep) if part]
    own = [path for path in given if installed is None or not _same(path, installed)]
    folder = out or (own[0] if own else default)
    if any(_same(folder, path) for path in own):
        return Place(folder, None)
    return Place(folder, export_line(variable, [folder.absolute(), *own]))


def export_line(variable: str, folders: list[Path]) -> str:
    """The shell's line that names these folders."""
    return f"export {variable}={shlex.quote(os.pathsep.join(map(str, folders)))}"


def _same(first: Path, second: Path) -> bool:
    return first.resolve() == second.resolve()
