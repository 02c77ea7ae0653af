"""Checks a COCO root: all its problems, not just the first, and notes on what is worth knowing. Free of torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from detector.data.coco.files import annotation_file, is_labelled, known_splits
from detector.data.coco.index import CocoIndex, Problem, read_split
from detector.data.coco.releases import NUM_COCO_CATEGORIES, RELEASES
from detector.errors import DataError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}


@dataclass(frozen=True)
class SplitReport:
    """Counts of one split, without annotations of unknown images or categories."""

    split: str
    num_images: int
    num_categories: int
    num_boxes: int  # crowd regions included
    num_crowd: int
    num_images_without_boxes: int
    num_boxes_without_area: int  # kept in the index, left out of the training


@dataclass(frozen=True)
class Verification:
    """What ``verify_root`` found; a note is not a problem."""

    root: Path
    splits: tuple[SplitReport, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


def verify_root(root: Path, splits: Sequence[str] | None = None, *, decode: bool) -> Verification:
    """Check the annotations and images of ``splits`` (None: of every annotation file in the root).

    Each image must exist and have the size that its annotations say; ``decode``: and its pixels must be readable,
    which takes about 2 ms per image; else only its header is read. Problems are returned, never raised.
    """
    reports, problems, notes = [], [], []
    names = known_splits(root) if splits is None else list(splits)
    if not names:
        files = "no annotations/instances_*.json or image_info_*.json"
        found = files if root.is_dir() else "the root folder does not exist"
        problems.append(Problem("annotations", None, found))
    for split in names:
        index, wrong = read_split(root, split)
        problems += wrong
        if index is not None:
            reports.append(_count(index))
            problems += check_images(index, decode=decode)
            notes += _notes(index)
    return Verification(root, tuple(reports), tuple(problems), tuple(notes))


def check_images(index: CocoIndex, *, decode: bool) -> list[Problem]:
    """Every image of the index that is missing, broken or not of its size, in the index's order."""

    def check(i: int) -> str | None:
        return image_problem(index.image_path(i), int(index.widths[i]), int(index.heights[i]), decode=decode)

    with ThreadPoolExecutor() as pool:  # decoding and file access release the interpreter's lock
        found = enumerate(pool.map(check, range(index.num_images)))
        return [
            Problem(f"{index.image_folder}/{index.file_name(i)}", int(index.image_ids[i]), message)
            for i, message in found
            if message is not None
        ]


def image_problem(path: Path, width: int, height: int, *, decode: bool) -> str | None:
    """What is wrong with an image file of ``width`` x ``height`` pixels, or None."""
    try:
        with Image.open(path) as image:
            size = image.size
            if decode:
                image.load()
    except FileNotFoundError:
        return "the image file is missing"
    except UnidentifiedImageError:
        return "not an image"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # PIL's for a broken file
        return f"broken image: {error}"
    if size != (width, height):
        return f"the image has {size[0]} x {size[1]} pixels, its annotations say {width} x {height}"
    return None


def missing_images(index: CocoIndex) -> list[str]:
    """Names of the images that have no file."""
    return sorted(set(index.file_names) - _files(index))


def _files(index: CocoIndex) -> set[str]:
    """All files of the split's folder, relative to it."""
    folder = index.root / index.image_folder
    found: set[str] = set()
    for top, _, names in os.walk(folder):
        inside = os.path.relpath(top, folder)
        found.update(names if inside == "." else (f"{inside}/{name}" for name in names))
    return found


def _count(index: CocoIndex) -> SplitReport:
    sides = index.boxes[:, 2:] - index.boxes[:, :2]
    return SplitReport(
        split=index.split,
        num_images=index.num_images,
        num_categories=len(index.category_ids),
        num_boxes=len(index.boxes),
        num_crowd=int(index.crowd.sum()),
        num_images_without_boxes=int((np.diff(index.offsets) == 0).sum()),
        num_boxes_without_area=int((sides <= 0).any(axis=1).sum()),
    )


def _notes(index: CocoIndex) -> list[str]:
    notes = []
    labelled = is_labelled(index.root, index.split)
    if not labelled:
        notes.append(f"{index.split}: only COCO's evaluation server has its labels: harness export, harness record")
    extra = sorted(
        name for name in _files(index) - set(index.file_names) if Path(name).suffix.lower() in IMAGE_SUFFIXES
    )
    if extra and index.image_folder == index.split:  # a folder of another name is shared with other splits
        notes.append(f"{index.split}: {len(extra):,} images without an entry in the annotations, first {extra[0]}")
    # The generated sets use COCO's names of splits, but not its 80 categories.
    if len(index.category_ids) == NUM_COCO_CATEGORIES:
        for release, splits in RELEASES.items():
            if index.split in splits:
                notes.append(_compare(index, release, *splits[index.split], labelled=labelled))
    return notes


def _compare(index: CocoIndex, release: str, num_images: int, num_boxes: int, *, labelled: bool) -> str:
    """How the split compares with the published one."""
    if (index.num_images, len(index.boxes)) == (num_images, num_boxes):
        boxes = f"{num_boxes:,} boxes" if labelled else "no labels"
        return f"{index.split}: the whole of COCO {release} ({num_images:,} images, {boxes})"
    if index.num_images < num_images:
        return f"{index.split}: a subset of {index.split}: {index.num_images:,} of {num_images:,} images"
    return (
        f"{index.split}: not COCO {release}'s: {index.num_images:,} images and {len(index.boxes):,} boxes, "
        f"not {num_images:,} and {num_boxes:,}"
    )


def check_release(index: CocoIndex, release: str) -> None:
    """Raise DataError unless the split has the numbers of images, boxes and categories of the published release."""
    splits = RELEASES.get(release)
    if splits is None or index.split not in splits:
        known = ", ".join(f"{split} of {name}" for name, found in RELEASES.items() for split in found)
        raise DataError(f"Unknown COCO release '{release}' or split '{index.split}'. Known: {known}.")
    expected = (*splits[index.split], NUM_COCO_CATEGORIES)
    found = (index.num_images, len(index.boxes), len(index.category_ids))
    if found != expected:
        counts = "{:,} images, {:,} boxes, {} categories"
        raise DataError(
            f"{annotation_file(index.root, index.split)}: not {index.split} of COCO {release}: "
            f"{counts.format(*found)}, not {counts.format(*expected)}. Give the root of the whole release, "
            "or use a profile whose data is a folder."
        )
