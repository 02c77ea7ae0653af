"""Checks a COCO root: all its problems, not just the first, and notes on what is worth knowing. Free of torch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from detector.data.coco.checks import is_usable
from detector.data.coco.files import annotation_file, is_labelled, known_splits
from detector.data.coco.index import CocoIndex, look_at_split, other_names, trainable
from detector.data.coco.problems import LISTED, Finding, Problem, as_note, as_problems, total
from detector.data.coco.releases import NUM_COCO_CATEGORIES, RELEASES
from detector.data.images import SUFFIXES, read_header, reason
from detector.errors import DataError
from detector.storage.shown import one_line

TURNED: Final = "images with an EXIF orientation other than 1, which are used as stored and not turned"


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

    @property
    def num_problems(self) -> int:
        """Also those that are not listed one by one."""
        return total(self.problems)


def verify_root(root: Path, splits: Sequence[str] | None = None, *, decode: bool, strict: bool = False) -> Verification:
    """Check the annotations and images of ``splits`` (None: of every annotation file in the root).

    Each image must exist and have the size that its annotations say; ``decode``: and its pixels must be readable,
    which takes about 2 ms per image; else only its header is read. ``strict``: what is read though it is odd is a
    problem. Problems are returned, never raised; without one, a training on the root starts.
    """
    names = known_splits(root) if splits is None else list(splits)
    problems: list[Problem] = []
    if not names:
        files = "no annotations/instances_*.json or image_info_*.json"
        found = files if root.is_dir() else "the root folder does not exist"
        problems.append(Problem("annotations", None, found))
    indices, notes = [], []
    for split in names:
        reading = look_at_split(root, split)
        problems += reading.problems
        odd = list(reading.notes)
        if reading.index is not None:
            indices.append(reading.index)
            wrong, turned = look_at_images(reading.index, decode=decode)
            problems += wrong
            odd += turned
            notes += _notes(reading.index)
        if strict:
            problems += [
                replace(entry, message=f"{entry.kind}: {entry.message}") for entry in as_problems(reading.file, odd)
            ]
        else:
            notes += [f"{split}: {as_note(one)}" for one in odd]
    labelled = [index for index in indices if is_labelled(root, index.split)]
    problems += _category_problems(labelled)
    broken = {problem.file for problem in problems}  # those have no boxes for a reason that is told
    untrainable, words = _without_boxes(root, labelled, broken)
    problems += untrainable
    return Verification(root, tuple(map(_count, indices)), tuple(problems), (*notes, *words))


def _category_problems(indices: Sequence[CocoIndex]) -> list[Problem]:
    """What the categories of two splits of a root contradict each other in."""
    found = []
    for index in indices[1:]:
        first, file = indices[0], str(annotation_file(index.root, index.split).relative_to(index.root))
        ids, names = first.category_ids.tolist(), first.category_names
        if differing := sorted(set(ids) ^ set(index.category_ids.tolist())):
            listed = ", ".join(map(str, differing[:10]))
            said = f"its categories are not those of {first.split}: they differ in the ids {listed}"
            found.append(Problem(file, differing[0], said))
            continue
        found += [
            Problem(file, key, f"category id {key} is {name!r} in {first.split}, {other!r} in {index.split}")
            for key, name, other in other_names(ids, names, index.category_names)
        ]
    return found


def _without_boxes(
    root: Path, indices: Sequence[CocoIndex], broken: Collection[str]
) -> tuple[list[Problem], list[str]]:
    """Splits with nothing to train on: as problems where a training would use them, else as notes."""
    problems, notes = [], []
    named = any(split.startswith("train") for split in known_splits(root))
    nothing = [index for index in indices if not len(trainable(index))]
    for index in nothing:
        file = str(annotation_file(root, index.split).relative_to(root))
        if file in broken:
            continue
        said = (
            f"no image with a box to train on: of {len(index.boxes):,} boxes {int(index.crowd.sum()):,} are crowd "
            f"regions, {int((index.sides <= 1).any(axis=1).sum()):,} at most one pixel wide or high"
        )
        if index.split.startswith("train") or (not named and len(nothing) == len(indices)):
            problems.append(Problem(file, None, said))
        else:
            notes.append(f"{index.split}: {said}")
    return problems, notes


def check_images(index: CocoIndex, *, decode: bool) -> list[Problem]:
    """Images that are missing, broken or not of their size, in the index's order."""
    return look_at_images(index, decode=decode)[0]


def look_at_images(index: CocoIndex, *, decode: bool) -> tuple[list[Problem], list[Finding]]:
    """What is wrong with each image, in the index's order, and those that EXIF says to turn."""

    def check(i: int) -> _Looked:
        if not is_usable(index.file_name(i)):  # told with the annotations, and may lead anywhere
            return _Looked("", None, 1)
        return _look(index.image_path(i), int(index.widths[i]), int(index.heights[i]), decode=decode)

    problems: list[Problem] = []
    turned: list[tuple[int | None, str]] = []
    counts: Counter[str] = Counter()
    with ThreadPoolExecutor() as pool:  # decoding and file access release the interpreter's lock
        for i, (kind, message, orientation) in enumerate(pool.map(check, range(index.num_images))):
            if message is not None:
                counts[kind] += 1
                if counts[kind] <= LISTED:
                    name = f"{index.image_folder}/{index.file_name(i)}"
                    problems.append(Problem(name, int(index.image_ids[i]), message, kind))
            elif orientation != 1:
                turned.append((int(index.image_ids[i]), f"{index.file_name(i)!r} ({orientation})"))
    for kind, count in counts.items():
        if more := count - LISTED if count > LISTED else 0:
            problems.append(Problem(index.image_folder, None, f"{more:,} more {kind}", kind, count=more))
    return problems, [Finding(TURNED, len(turned), tuple(turned[:LISTED]))] if turned else []


def image_problem(path: Path, width: int, height: int, *, decode: bool) -> str | None:
    """What is wrong with an image file of ``width`` x ``height`` pixels, or None."""
    return _look(path, width, height, decode=decode).message


class _Looked(NamedTuple):
    kind: str
    message: str | None
    orientation: int


def _look(path: Path, width: int, height: int, *, decode: bool) -> _Looked:
    try:
        found = read_header(path, decode=decode)
    except FileNotFoundError:
        return _Looked("missing image files", "the image file is missing", 1)
    except (DataError, OSError) as error:
        return _Looked("images that cannot be read", reason(error), 1)
    size, orientation = (found.width, found.height), found.orientation
    if size == (width, height):
        return _Looked("", None, orientation)
    said = f"the image has {size[0]} x {size[1]} pixels, its annotations say {width} x {height}"
    if orientation >= 5 and size == (height, width):
        said += f": those of the image turned by its EXIF orientation {orientation}, but pixels are used as stored"
    return _Looked("images of another size than their annotations say", said, orientation)


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
    return SplitReport(
        split=index.split,
        num_images=index.num_images,
        num_categories=len(index.category_ids),
        num_boxes=len(index.boxes),
        num_crowd=int(index.crowd.sum()),
        num_images_without_boxes=int((np.diff(index.offsets) == 0).sum()),
        num_boxes_without_area=int((index.sides <= 0).any(axis=1).sum()),
    )


def _notes(index: CocoIndex) -> list[str]:
    notes = []
    labelled = is_labelled(index.root, index.split)
    if not labelled:
        notes.append(f"{index.split}: only COCO's evaluation server has its labels: harness export, harness record")
    extra = sorted(name for name in _files(index) - set(index.file_names) if Path(name).suffix.lower() in SUFFIXES)
    if extra and index.image_folder == index.split:  # a folder of another name is shared with other splits
        notes.append(
            f"{index.split}: {len(extra):,} images without an entry in the annotations, first {one_line(extra[0])}"
        )
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
