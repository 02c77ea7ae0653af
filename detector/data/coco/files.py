"""The files of a COCO root: which splits it has, and the hash of their annotations."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

from detector.data.coco.cache import content_of
from detector.data.coco.releases import IMAGE_FOLDERS, how_to_get
from detector.errors import DataError
from detector.storage.reading import open_regular


def annotation_file(root: Path, split: str) -> Path:
    """The split's instances file; where there is none, but an image_info file, that one.

    Raises DataError for a split that is no plain name: it is a folder's too, and may come from a file.
    """
    if not split or split in (".", "..") or "/" in split or "\0" in split:
        raise DataError(f"{split!r} is no name of a split. Valid: names such as val2017.")
    labelled, unlabelled = (root / "annotations" / f"{kind}_{split}.json" for kind in ("instances", "image_info"))
    return unlabelled if unlabelled.is_file() and not labelled.is_file() else labelled


def is_labelled(root: Path, split: str) -> bool:
    """False for a split that has an image_info file only: its labels are not public."""
    return annotation_file(root, split).name.startswith("instances_")


def known_splits(root: Path) -> list[str]:
    """Splits of which the root has annotations, or at least a list of images."""
    return sorted(
        {
            path.stem.removeprefix(f"{kind}_")
            for kind in ("instances", "image_info")
            for path in root.glob(f"annotations/{kind}_*.json")
        }
    )


def missing_split(root: Path, split: str) -> str:
    """Why a root has no annotations of a split, and what it has."""
    if not root.is_dir():
        return "the root folder does not exist; set HARNESS_DATA to a COCO root"
    known = ", ".join(known_splits(root)) or "no annotations"
    return f"no such split '{split}'; the root has {known}{how_to_get(split)}"


def is_in_root(path: Path) -> bool:
    """Whether an image file lies in a COCO root, in the folder of one of its splits."""
    for inside, root in pairwise(path.absolute().parents):
        if (root / "annotations").is_dir():
            splits = known_splits(root)
            if inside.name in {IMAGE_FOLDERS.get(split, split) for split in splits}:
                return True
    return False


def annotations_sha256(root: Path, split: str) -> str:
    """Hexadecimal sha256 of the annotation file, by which a job names a folder. Raises DataError if it is missing."""
    path = annotation_file(root, split)
    if not path.exists():
        raise DataError(f"{path}: {missing_split(root, split)}. Run 'harness data verify {root}'.")
    if (content := content_of(path)) is not None:
        return content.sha256
    with open_regular(path, raises=DataError) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
