"""How the functions of ``import harness`` name what they are about: targets, overrides, folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from detector.errors import UsageError
from harness.planning.selection import Selection, Targets
from harness.store.records import Source

Overrides = Mapping[str, Any] | Sequence[str]  # {"optimizer.lr": 0.005}, or ["optimizer.lr=0.005"] as after --set
Folder = Path | str


def path_of(given: Folder | None) -> Path | None:
    """The same as a Path."""
    return None if given is None else Path(given)


def override_texts(overrides: Overrides | None) -> tuple[str, ...]:
    """Overrides as ``--set`` takes them, PATH=VALUE each."""
    if isinstance(overrides, Mapping):
        return tuple(f"{path}={msgspec.json.encode(value).decode()}" for path, value in overrides.items())
    if isinstance(overrides, str):
        raise UsageError(f"overrides takes a mapping or a list of PATH=VALUE, got the text {overrides!r}.")
    return tuple(overrides or ())


def select(
    target: Targets,
    profile: str,
    *,
    overrides: Overrides | None = None,
    data: Folder | None = None,
    batch_size: int | None = None,
    source: Source | None = None,
) -> Selection:
    """One selection of all rows of the targets. Raises UsageError for an unknown name, with the known ones."""
    return Selection(target, profile, list(override_texts(overrides)), path_of(data), batch_size, source=source)
