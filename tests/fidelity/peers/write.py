"""Writes the peers' answers: the same numbers give the same bytes, and a broken run leaves nothing behind."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """All arrays into one compressed .npz, in the order of their names."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    try:
        np.savez_compressed(temporary, **{name: arrays[name] for name in sorted(arrays)})  # type: ignore[arg-type]
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_names(path: Path, shapes: Mapping[str, Sequence[int]]) -> None:
    """Names and shapes of a state dict as JSON, one per line, in the peer's order."""
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(list(shape))}" for name, shape in shapes.items())
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
