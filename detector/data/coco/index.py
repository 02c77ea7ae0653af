"""A COCO-format split as sorted numpy columns. Free of torch.

A root holds ``annotations/instances_{split}.json`` and ``{split}/FILE``; of a split whose labels are not public,
``annotations/image_info_{split}.json``. The columns hold no Python object for each annotation, so that loader
processes share their memory; those of a large file are cached, and memory-mapped the next time.

Legend: N images, B boxes, C categories.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from detector.data.coco.annotations import AnnotationTable, find
from detector.data.coco.cache import content_of, open_columns, store_columns
from detector.data.coco.checks import notes_of, problems_of
from detector.data.coco.files import annotation_file, annotations_sha256, is_labelled, missing_split
from detector.data.coco.problems import Finding, Problem, as_problems, summary
from detector.data.coco.releases import IMAGE_FOLDERS
from detector.errors import DataError
from detector.storage.retry import retry

# The fields that the cache stores, with their declared types.
COLUMNS: Final = (
    "image_ids",
    "encoded_names",
    "widths",
    "heights",
    "category_ids",
    "encoded_categories",
    "offsets",
    "boxes",
    "labels",
    "crowd",
    "annotation_ids",
    "areas",
    "sides",
)


@dataclass(frozen=True, eq=False)
class CocoIndex:
    """The images of one split and their boxes; those of image i are the rows ``offsets[i]:offsets[i + 1]``.

    ``boxes`` are xyxy = (x, y, x + w, y + h) in pixels, unrounded and unclipped. A label is the position of its
    category in ``category_ids``. ``areas`` are the segmentations' areas in pixels, by which COCO calls an
    object small, medium or large.
    """

    root: Path
    split: str
    image_ids: NDArray[np.int64]  # [N] ascending
    encoded_names: NDArray[np.bytes_]  # [N] UTF-8
    widths: NDArray[np.int32]  # [N] pixels
    heights: NDArray[np.int32]  # [N] pixels
    category_ids: NDArray[np.int64]  # [C] ascending, gaps allowed
    encoded_categories: NDArray[np.bytes_]  # [C] UTF-8
    offsets: NDArray[np.int64]  # [N + 1]
    boxes: NDArray[np.float64]  # [B, 4]
    labels: NDArray[np.int64]  # [B] 0..C-1
    crowd: NDArray[np.bool_]  # [B] a region of many objects: never trained on, ignored by the evaluation
    annotation_ids: NDArray[np.int64]  # [B]
    areas: NDArray[np.float64]  # [B]
    sides: NDArray[np.float64]  # [B, 2] width, height as the file has them: x + w - x is not w to the last bit
    mapped: tuple[str, str] | None = None  # sha256 and kind of the annotations, where the columns are the cache's

    def __reduce__(self) -> tuple[Any, ...]:
        """A memory-mapped index is sent to another process as its key in the cache, and mapped again there."""
        if self.mapped is not None:
            return _mapped_again, (self.root, self.split, *self.mapped)
        return CocoIndex, tuple(getattr(self, field.name) for field in fields(self))

    @property
    def num_images(self) -> int:
        return len(self.image_ids)

    @property
    def file_names(self) -> list[str]:
        """[N]; ``file_name`` gives a single one."""
        return [_decoded(name) for name in self.encoded_names.tolist()]

    @property
    def category_names(self) -> tuple[str, ...]:
        """[C]"""
        return tuple(_decoded(name) for name in self.encoded_categories.tolist())

    @property
    def image_folder(self) -> str:
        """Name of the split's folder of images in the root."""
        return IMAGE_FOLDERS.get(self.split, self.split)

    def file_name(self, i: int) -> str:
        """File name of the image at position ``i``, within the split's folder."""
        return _decoded(self.encoded_names[i])

    def image_path(self, i: int) -> Path:
        """File of the image at position ``i``."""
        return self.root / self.image_folder / self.file_name(i)

    def annotations_of(self, i: int) -> slice:
        """Rows of the box columns that belong to the image at position ``i``."""
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))

    def positions(self) -> NDArray[np.int64]:
        """[B] position of each box's image."""
        return np.repeat(np.arange(self.num_images), np.diff(self.offsets))


def load_index(root: Path, split: str) -> CocoIndex:
    """The checked index of one split; the first few problems are in the error.

    Only annotations without any problem are cached, so that the problems of others are reported each time.
    Raises DataError for a missing root, split or annotation file, for JSON that is not valid, and for whatever
    ``read_split`` finds wrong.
    """
    path, kind = annotation_file(root, split), "instances" if is_labelled(root, split) else "image_info"
    try:
        content = retry(lambda: content_of(path), f"reading {path}")
    except OSError:
        content = None  # reported below
    if content is not None and (kept := _mapped(root, split, content.sha256, kind)) is not None:
        return kept
    index, problems = read_split(root, split)
    if index is None or problems:
        raise DataError(f"{root}: {summary(problems)}. Run 'harness data verify {root}' for all of it.")
    if content is None:
        return index
    store_columns(path, content, kind, {name: getattr(index, name) for name in COLUMNS})
    return _mapped(root, split, content.sha256, kind) or index


@dataclass(frozen=True)
class Reading:
    """One split's annotations as they were found.

    index: without the boxes of unknown images or categories; None where the file cannot be read at all. notes: what was
    read though it is odd.
    """

    file: str
    index: CocoIndex | None
    problems: list[Problem]
    notes: list[Finding]


def look_at_split(root: Path, split: str) -> Reading:
    """All problems of one split's annotations, what is worth a note, and an index of the rest.

    A box without area is no problem (train2017 has some): ``trainable`` and the training leave it out. An annotation
    without ``iscrowd`` is an object; without ``area`` its box's area stands in.
    """
    name, table = _table(root, split)
    if isinstance(table, Problem):
        return Reading(name, None, [table], [])
    return Reading(name, _index(table, root, split), as_problems(name, problems_of(table)), notes_of(table))


def read_split(root: Path, split: str) -> tuple[CocoIndex | None, list[Problem]]:
    """``look_at_split`` without its notes, which take a fifth of a second for train2017."""
    name, table = _table(root, split)
    if isinstance(table, Problem):
        return None, [table]
    return _index(table, root, split), as_problems(name, problems_of(table))


def _table(root: Path, split: str) -> tuple[str, AnnotationTable | Problem]:
    """The name of the annotation file, and its columns or why it cannot be read at all."""
    path, labelled = annotation_file(root, split), is_labelled(root, split)
    name = str(path.relative_to(root))
    if not path.exists():
        return name, Problem(name, None, missing_split(root, split))
    try:
        return name, retry(lambda: AnnotationTable.read(path, labelled=labelled), f"reading {path}")
    except (msgspec.MsgspecError, ValueError, OSError, DataError) as error:
        kind = "instances" if labelled else "image_info"
        return name, Problem(name, None, f"not a readable COCO {kind} file: {error}")


def trainable(index: CocoIndex, *, crowd_only: bool = False) -> NDArray[np.int64]:
    """Positions of the images with a box to train on: not a crowd, wider and higher than 1 pixel (base codebase).

    crowd_only: also those of which only crowds are of that size.
    """
    # xyxy costs a rounding, so a box of exactly 1 pixel may come back as 1 + 1e-13.
    x1, y1, x2, y2 = index.boxes.T
    usable = (~index.crowd | crowd_only) & (x2 - x1 > 1 + 1e-6) & (y2 - y1 > 1 + 1e-6)
    before = np.concatenate([[0], np.cumsum(usable)])[index.offsets]  # usable boxes of all images before each
    return np.flatnonzero(np.diff(before))


def other_names(
    ids: Sequence[int], names: Sequence[str], others: Sequence[str], *, most: int = 3
) -> list[tuple[int, str, str]]:
    """(id, name, other name) of the first categories that two lists of the same ids call differently.

    Case and outer spaces are no difference.
    """
    rows = zip(ids, names, others, strict=True)
    return [(key, a, b) for key, a, b in rows if a.strip().casefold() != b.strip().casefold()][:most]


def select(index: CocoIndex, positions: NDArray[np.int64]) -> CocoIndex:
    """The index of the images at ``positions`` ([M] strictly ascending), with all categories.

    Raises ValueError where ``positions`` are not ascending: an index is sorted by image id.
    """
    if (np.diff(positions) <= 0).any():
        raise ValueError(f"positions must be strictly ascending, got {positions}")
    counts = np.diff(index.offsets)[positions]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    rows = np.repeat(index.offsets[positions] - offsets[:-1], counts) + np.arange(offsets[-1])
    return replace(
        index,
        image_ids=index.image_ids[positions],
        encoded_names=index.encoded_names[positions],
        widths=index.widths[positions],
        heights=index.heights[positions],
        offsets=offsets,
        boxes=index.boxes[rows],
        labels=index.labels[rows],
        crowd=index.crowd[rows],
        annotation_ids=index.annotation_ids[rows],
        areas=index.areas[rows],
        sides=index.sides[rows],
        mapped=None,
    )


def _mapped(root: Path, split: str, sha256: str, kind: str, *, check: bool = True) -> CocoIndex | None:
    columns = open_columns(sha256, kind, COLUMNS, check=check)
    return None if columns is None else CocoIndex(root, split, **cast(Any, columns), mapped=(sha256, kind))


def _mapped_again(root: Path, split: str, sha256: str, kind: str) -> CocoIndex:
    """The index that another process has mapped. Raises DataError where the annotations have changed since."""
    if (kept := _mapped(root, split, sha256, kind, check=False)) is not None:
        return kept
    if annotations_sha256(root, split) != sha256:
        raise DataError(f"{annotation_file(root, split)} has changed since it was opened. Run again.")
    return load_index(root, split)


def _encoded(names: Iterable[str]) -> NDArray[np.bytes_]:
    # JSON may hold half of a surrogate pair, which plain UTF-8 cannot encode.
    return np.array([name.encode("utf-8", "surrogatepass") for name in names], dtype=np.bytes_)


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")


def _index(table: AnnotationTable, root: Path, split: str) -> CocoIndex:
    """Sorted by image, the boxes of an image in the file's order; without repeated images and boxes of unknown ones."""
    image_ids, first = np.unique(table.images[:, 0], return_index=True)
    category_ids = np.array(sorted(table.categories), dtype=np.int64)
    image, label = find(image_ids, table.annotations[:, 1]), find(category_ids, table.annotations[:, 2])
    known = np.flatnonzero((image >= 0) & (label >= 0))
    # Distinct keys need no stable sort, which takes five times as long.
    rows = np.sort(image[known] * len(image) + known) % max(1, len(image))
    corner, sides = table.xywh[rows, :2], table.xywh[rows, 2:]
    with np.errstate(invalid="ignore", over="ignore"):  # a box that is not finite has been reported
        boxes = np.concatenate([corner, corner + sides], axis=1)
    return CocoIndex(
        root=root,
        split=split,
        image_ids=image_ids,
        encoded_names=_encoded(table.file_names)[first],
        widths=table.images[first, 1].astype(np.int32),
        heights=table.images[first, 2].astype(np.int32),
        category_ids=category_ids,
        encoded_categories=_encoded(table.categories[key] for key in category_ids.tolist()),
        offsets=np.concatenate([[0], np.cumsum(np.bincount(image[known], minlength=len(image_ids)))]),
        boxes=boxes,
        labels=label[rows],
        crowd=table.annotations[rows, 3].astype(np.bool_),
        annotation_ids=table.annotations[rows, 0],
        areas=table.areas[rows],
        sides=sides,
    )
