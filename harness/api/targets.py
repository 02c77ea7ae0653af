"""How the functions of ``import harness`` name what they are about: targets, overrides, folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from detector.errors import UsageError
from harness.planning.selection import Selection
from harness.store.records import Source

Targets = str | Sequence[str]  # "all", a table, a row; or several of them
Overrides = Mapping[str, Any] | Sequence[str]  # {"optimizer.lr": 0.005}, or ["optimizer.lr=0.005"] as after --set
Folder = Path | str


def target_names(target: Targets) -> tuple[str, ...]:
    """The targets, each once. Raises UsageError where there is none."""
    names = (target,) if isinstance(target, str) else tuple(dict.fromkeys(target))
    if not names:
        raise UsageError("No target was given: 'all', a table such as 'table2', a row such as 'table2/L6', or several.")
    return names


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
    first, *others = target_names(target)
    selection = Selection(first, profile, list(override_texts(overrides)), path_of(data), batch_size, source=source)
    refs = [*selection.refs, *(ref for name in others for ref in selection.registry.select(name, profile))]
    selection.refs = list(dict.fromkeys(refs))
    selection.target = ", ".join((first, *others))
    return selection
