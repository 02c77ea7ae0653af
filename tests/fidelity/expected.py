"""The peers' numbers (tests/data/README.md) and the largest difference from them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).resolve().parents[1] / "data"
MASKRCNN_BENCHMARK = "maskrcnn-benchmark 57eec25"
DETECTRON2 = "Detectron2 02b5c4e2"
DR_LOSS = "the authors' loss file f9fa187"


@cache
def arrays(name: str) -> dict[str, NDArray[Any]]:
    """All arrays of ``tests/data/NAME.npz``; do not change them in place."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def largest(ours: Any, theirs: Any) -> float:
    """Largest absolute difference of two arrays or tensors of one shape; NaN where either has one."""
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    assert a.shape == b.shape, (a.shape, b.shape)
    return float(np.abs(a - b).max()) if a.size else 0.0


def relative(ours: Any, theirs: Any) -> float:
    """Largest absolute difference by the largest magnitude of theirs."""
    return largest(ours, theirs) / float(np.abs(np.asarray(theirs, dtype=np.float64)).max())
