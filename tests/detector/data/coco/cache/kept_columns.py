"""What the tests of an annotation file's cached columns compare."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detector.data.coco.index import COLUMNS, CocoIndex, read_split

SPLIT = "val2017"


def assert_same(index: CocoIndex, root: Path, split: str = SPLIT) -> None:
    """Every column is that of a direct reading, and of its type."""
    direct, problems = read_split(root, split)
    assert direct is not None
    assert not problems
    assert (index.root, index.split) == (root, split)
    for name in COLUMNS:
        kept, read = getattr(index, name), getattr(direct, name)
        assert kept.dtype == read.dtype, name
        np.testing.assert_array_equal(kept, read, err_msg=name)
    assert index.file_names == direct.file_names
    assert index.category_names == direct.category_names


def entry(place: Path) -> Path:
    (found,) = (place / "columns").iterdir()
    return found
