"""The annotation file of one COCO split: its columns, and everything that can be wrong in it. Free of torch.

Legend: N images, B boxes.
"""

from __future__ import annotations

import gc
import json
import mmap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import ArrayLike, NDArray

# COCO's own boxes overhang their image by fractions of a pixel; anything larger is a mistake.
OVERHANG = 1.0
MAX_SIDE = 2**31 - 1

_Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class _Image(Struct, frozen=True, gc=False):
    id: _Int64
    file_name: str
    width: _Int64
    height: _Int64


class _Annotation(Struct, frozen=True, gc=False):
    id: _Int64
    image_id: _Int64
    category_id: _Int64
    bbox: tuple[float, float, float, float]
    iscrowd: Literal[0, 1] = 0
    area: float | None = None


class _Category(Struct, frozen=True, gc=False):
    id: _Int64
    name: str


class _File(Struct, frozen=True, gc=False):
    """The fields of an instances file that a detector reads; all others are ignored."""

    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


class _ImageInfo(Struct, frozen=True, gc=False):
    """The same fields of an image_info file, which lists the images of a split whose labels are not public."""

    images: list[_Image]
    categories: list[_Category]
    annotations: Annotated[list[_Annotation], Meta(max_length=0)] = []


@dataclass(frozen=True, eq=False)
class AnnotationTable:
    """The file's columns in its own order."""

    file_names: list[str]  # [N]
    images: NDArray[np.int64]  # [N, 3] id, width, height
    categories: dict[int, str]
    category_ids: list[int]
    annotations: NDArray[np.int64]  # [B, 4] id, image id, category id, crowd
    xywh: NDArray[np.float64]  # [B, 4]
    areas: NDArray[np.float64]  # [B]

    @staticmethod
    def read(path: Path, *, labelled: bool = True) -> AnnotationTable:
        """Read a file. Raises ValueError where it is not JSON, or not an instances file.

        labelled: False for an image_info file, which has no annotations, or an empty list of them.
        """
        kind: type[_File] | type[_ImageInfo] = _File if labelled else _ImageInfo
        # Memory-mapped: processes that read it at the same time share train2017's half gigabyte.
        with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content, _no_gc():
            try:
                file = msgspec.json.decode(content, type=kind)
            except msgspec.ValidationError:
                raise
            except msgspec.DecodeError:
                # NaN and Infinity are not JSON, but common writers emit them: read them, so that the check names them.
                file = msgspec.convert(json.loads(content[:]), kind)
            return AnnotationTable._of(file)

    @staticmethod
    def _of(file: _File | _ImageInfo) -> AnnotationTable:
        rows = file.annotations
        areas = list(map(attrgetter("area"), rows))
        if None in areas:
            areas = [row.bbox[2] * row.bbox[3] if row.area is None else row.area for row in rows]
        corners = chain.from_iterable(map(attrgetter("bbox"), rows))
        return AnnotationTable(
            [image.file_name for image in file.images],
            _columns(file.images, "id", "width", "height"),
            {category.id: category.name for category in file.categories},
            [category.id for category in file.categories],
            _columns(rows, "id", "image_id", "category_id", "iscrowd"),
            np.fromiter(corners, np.float64, 4 * len(rows)).reshape(-1, 4),
            np.fromiter(areas, np.float64, len(rows)),
        )

    def check(self) -> list[tuple[int, str]]:
        """(id, message) of every problem: first of categories and images, then of annotations."""
        return [*self._check_images(), *self._check_annotations()]

    def _check_images(self) -> list[tuple[int, str]]:
        ids, widths, heights = self.images.T
        categories = np.array(self.category_ids, dtype=np.int64)
        impossible = (self.images[:, 1:] < 1).any(axis=1) | (self.images[:, 1:] > MAX_SIDE).any(axis=1)
        unsafe = [not name or name.startswith("/") or ".." in name.split("/") for name in self.file_names]
        return [
            *_list(_repeated(categories), categories, lambda i: f"category id {categories[i]} is given twice"),
            *_list(_repeated(ids), ids, lambda i: f"image id {ids[i]} is given twice"),
            *_list(impossible, ids, lambda i: f"image {ids[i]} has the impossible size {widths[i]} x {heights[i]}"),
            *_list(unsafe, ids, lambda i: f"image {ids[i]} has the unusable file name '{self.file_names[i]}'"),
        ]

    def _check_annotations(self) -> list[tuple[int, str]]:
        ids, images, categories, _ = self.annotations.T
        image_ids, first = np.unique(self.images[:, 0], return_index=True)
        position = find(image_ids, images)
        # An unknown image is a problem of its own; its boxes are not compared with any border.
        border = np.full((len(ids), 2), np.inf)
        border[position >= 0] = self.images[first[position[position >= 0]], 1:]
        corner, sides = self.xywh[:, :2], self.xywh[:, 2:]
        finite = np.isfinite(self.xywh).all(axis=1)
        positive = (sides >= 0).all(axis=1)
        with np.errstate(invalid="ignore"):  # inf - inf, reported as not finite
            outside = ((corner < -OVERHANG) | (corner + sides > border + OVERHANG)).any(axis=1)
        measured = (self.areas >= 0) & np.isfinite(self.areas)
        unknown = find(np.array(sorted(self.categories), dtype=np.int64), categories) < 0

        def annotation(i: int) -> str:
            return f"annotation {ids[i]} of image {images[i]}"

        def box(i: int) -> str:
            return f"{annotation(i)}: bbox (x, y, width, height) = {tuple(self.xywh[i].tolist())}"

        return [
            *_list(ids == 0, ids, lambda i: f"{annotation(i)}: the COCO evaluation reads the id 0 as 'no match'"),
            *_list(_repeated(ids), ids, lambda i: f"annotation id {ids[i]} is given twice"),
            *_list(position < 0, ids, lambda i: f"annotation {ids[i]}: unknown image id {images[i]}"),
            *_list(unknown, ids, lambda i: f"{annotation(i)}: unknown category id {categories[i]}"),
            *_list(~finite, ids, lambda i: f"{box(i)} is not finite"),
            *_list(finite & ~positive, ids, lambda i: f"{box(i)} has a negative size"),
            *_list(
                finite & positive & outside,
                ids,
                lambda i: f"{box(i)} is outside its image of {border[i, 0]:.0f} x {border[i, 1]:.0f}",
            ),
            *_list(
                finite & positive & ~measured, ids, lambda i: f"{annotation(i)}: area {self.areas[i]} is no pixel count"
            ),
        ]


def find(ascending: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Position of each value in an ascending array, -1 where it is not there."""
    if not len(ascending):
        return np.full(len(values), -1, dtype=np.int64)
    low, high = ascending[0], ascending[-1]
    if int(high) - int(low) < len(ascending) + len(values):  # a table no larger than they are: ten times faster
        table = np.zeros(int(high) - int(low) + 1, dtype=np.int64)
        table[ascending - low] = np.arange(len(ascending))
        position = table[np.clip(values, low, high) - low]
    else:
        position = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.where(ascending[position] == values, position, -1)


def _columns(rows: Sequence[_Image] | Sequence[_Annotation], *names: str) -> NDArray[np.int64]:
    """[rows, names], each column contiguous."""
    return np.stack([np.fromiter(map(attrgetter(name), rows), np.int64, len(rows)) for name in names]).T


@contextmanager
def _no_gc() -> Iterator[None]:
    """Without Python's cycle collector, which would scan the growing table many times and find nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _list(wrong: ArrayLike, ids: NDArray[np.int64], message: Callable[[int], str]) -> list[tuple[int, str]]:
    return [(int(ids[i]), message(i)) for i in np.flatnonzero(wrong).tolist()]


def _repeated(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True at every second and later occurrence of a value."""
    ascending = np.sort(values)
    if (ascending[1:] > ascending[:-1]).all():  # the usual case: five times faster
        return np.zeros(len(values), dtype=np.bool_)
    repeated = np.ones(len(values), dtype=np.bool_)
    repeated[np.unique(values, return_index=True)[1]] = False
    return repeated
