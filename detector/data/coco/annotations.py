"""The annotation file of one COCO split as columns. Free of torch.

A plain file is decoded in one go; only one that is not plain is read entry by entry (``coco.forms``). What can be wrong
in the columns is found by ``coco.checks``. Legend: N images, B boxes.
"""

from __future__ import annotations

import gc
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from detector.data.coco.forms import Forms, parse, read_forms
from detector.data.coco.problems import Finding
from detector.errors import DataError
from detector.storage.reading import open_regular
from detector.storage.retry import RETRY_SECONDS

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
    """The file's columns in its own order.

    problems, notes: of entries that are not plain (``coco.forms``); entries that cannot be read are in no column.
    """

    file_names: list[str]  # [N]
    images: NDArray[np.int64]  # [N, 3] id, width, height
    categories: dict[int, str]
    listed: list[tuple[int, str]]  # the categories as the file lists them
    annotations: NDArray[np.int64]  # [B, 4] id, image id, category id, crowd
    xywh: NDArray[np.float64]  # [B, 4]
    areas: NDArray[np.float64]  # [B]
    problems: tuple[Finding, ...] = ()
    notes: tuple[Finding, ...] = ()

    @staticmethod
    def read(path: Path, *, labelled: bool = True) -> AnnotationTable:
        """Read a file. Raises ValueError where it is not JSON, or not an instances file; DataError as ``open_regular``.

        labelled: False for an image_info file, which has no annotations, or an empty list of them.
        """
        kind: type[_File] | type[_ImageInfo] = _File if labelled else _ImageInfo
        # Memory-mapped: processes that read it at the same time share train2017's half gigabyte.
        with open_regular(path, raises=DataError, retry_seconds=RETRY_SECONDS) as handle, _no_gc():
            if not os.fstat(handle.fileno()).st_size:
                raise ValueError("it is empty")
            with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return AnnotationTable._decoded(content, kind)

    @staticmethod
    def of_text(content: bytes, *, labelled: bool = True) -> AnnotationTable:
        """As ``read``, of a file's content."""
        return AnnotationTable._decoded(content, _File if labelled else _ImageInfo)

    @staticmethod
    def _decoded(content: bytes | mmap.mmap, kind: type[_File] | type[_ImageInfo]) -> AnnotationTable:
        try:
            return AnnotationTable._of(msgspec.json.decode(content, type=kind))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            decoded, encoding = parse(content[:])
            if not _has_the_lists(decoded, kind):
                msgspec.convert(decoded, kind)  # it says what is wrong
                raise
            if isinstance(error, msgspec.ValidationError) or encoding != "utf-8":
                return AnnotationTable._of_forms(read_forms(decoded, encoding))
            try:  # NaN and Infinity are not JSON, but common writers emit them: read them, so that the check names them
                return AnnotationTable._of(msgspec.convert(decoded, kind))
            except msgspec.ValidationError:
                return AnnotationTable._of_forms(read_forms(decoded, encoding))
        except RecursionError as error:
            raise ValueError("it is nested too deep") from error

    @staticmethod
    def _of_forms(forms: Forms) -> AnnotationTable:
        file = _File(
            [_Image(*row) for row in forms.images],
            [_Annotation(i, k, c, box, 1 if crowd else 0, area) for i, k, c, box, crowd, area in forms.annotations],
            [_Category(*row) for row in forms.categories],
        )
        return replace(AnnotationTable._of(file), problems=tuple(forms.problems), notes=tuple(forms.notes))

    @staticmethod
    def _of(file: _File | _ImageInfo) -> AnnotationTable:
        rows = file.annotations
        areas = list(map(attrgetter("area"), rows))
        if None in areas:
            areas = [row.bbox[2] * row.bbox[3] if row.area is None else row.area for row in rows]
        corners = chain.from_iterable(map(attrgetter("bbox"), rows))
        listed = [(category.id, category.name) for category in file.categories]
        return AnnotationTable(
            [image.file_name for image in file.images],
            _columns(file.images, "id", "width", "height"),
            dict(listed),
            listed,
            _columns(rows, "id", "image_id", "category_id", "iscrowd"),
            np.fromiter(corners, np.float64, 4 * len(rows)).reshape(-1, 4),
            np.fromiter(areas, np.float64, len(rows)),
        )


def _has_the_lists(decoded: Any, kind: type[_File] | type[_ImageInfo]) -> bool:
    """Whether it is an annotation file at all: an object with the lists that are read entry by entry."""
    if not isinstance(decoded, dict):
        return False
    lists = ("images", "categories", "annotations") if kind is _File else ("images", "categories")
    unlabelled = kind is _File or not decoded.get("annotations")
    return unlabelled and all(isinstance(decoded.get(name), list) for name in lists)


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


def repeated(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True at every second and later occurrence of a value."""
    ascending = np.sort(values)
    if (ascending[1:] > ascending[:-1]).all():  # the usual case: five times faster
        return np.zeros(len(values), dtype=np.bool_)
    repeated = np.ones(len(values), dtype=np.bool_)
    repeated[np.unique(values, return_index=True)[1]] = False
    return repeated
