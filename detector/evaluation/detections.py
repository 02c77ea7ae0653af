"""Detections as columns, COCO's result files, and what makes detections unfit to be scored. Free of torch."""

from __future__ import annotations

import codecs
import gzip
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from detector.data.coco.annotations import find
from detector.data.coco.checks import LARGER, MAX_SIDE, OVERHANG
from detector.data.coco.index import CocoIndex
from detector.errors import DataError
from detector.storage.files import write_atomic
from detector.storage.reading import gunzip, read_bytes

MOST_BYTES: Final = 2**30  # of a result list, unpacked: 20,000 images with 100 boxes each have a fifth of it
SHOWN_IDS: Final = 8


@dataclass(frozen=True, eq=False)
class Detections:
    """M detections. Boxes are COCO's (x, y, width, height) in pixels of the original image."""

    image_ids: NDArray[np.int64]  # [M]
    category_ids: NDArray[np.int64]  # [M]
    boxes: NDArray[np.float64]  # [M, 4]
    scores: NDArray[np.float64]  # [M]

    def __len__(self) -> int:
        return len(self.scores)

    @staticmethod
    def concatenate(parts: Iterable[Detections]) -> Detections:
        """All parts, sorted by image (stable), so that the number of processes does not show."""
        parts = list(parts)
        if not parts:
            return Detections(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0))
        columns = [np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS]
        order = np.argsort(columns[0], kind="stable")
        return Detections(*(column[order] for column in columns))


_COLUMNS = ("image_ids", "category_ids", "boxes", "scores")
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _Result(msgspec.Struct, frozen=True, gc=False):
    """One entry of COCO's result list; further fields (segmentation, ...) are ignored."""

    image_id: _Int64
    category_id: _Int64
    bbox: tuple[float, float, float, float]
    score: float


def write_detections(path: Path, detections: Detections) -> None:
    """COCO's result list as gzip'd JSON, atomically."""
    columns = (getattr(detections, name).tolist() for name in _COLUMNS)
    results = [_Result(i, c, tuple(box), score) for i, c, box, score in zip(*columns, strict=True)]
    write_atomic(path, gzip.compress(msgspec.json.encode(results), compresslevel=3, mtime=0))


def read_detections(path: Path) -> Detections:
    """COCO's result list from .json or .json.gz. Raises DataError naming the file and what is wrong in it."""
    content = read_bytes(path, most=MOST_BYTES, raises=DataError)
    try:
        if path.suffix == ".gz":
            content = gunzip(content, where=str(path), most=MOST_BYTES, raises=DataError)
        results = msgspec.json.decode(content.removeprefix(codecs.BOM_UTF8), type=list[_Result])
    except (DataError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        why = str(error).removeprefix(f"{path} ").rstrip(".")
        raise DataError(f"{path} is not a COCO result list (image_id, category_id, bbox, score): {why}.") from error
    count = len(results)
    return Detections(
        np.fromiter((result.image_id for result in results), np.int64, count),
        np.fromiter((result.category_id for result in results), np.int64, count),
        np.fromiter(chain.from_iterable(result.bbox for result in results), np.float64, 4 * count).reshape(-1, 4),
        np.fromiter((result.score for result in results), np.float64, count),
    )


def check_detections(index: CocoIndex, detections: Detections) -> None:
    """Raises DataError for what pycocotools would take silently: NaN, unknown images or categories."""
    with np.errstate(invalid="ignore"):
        finite = (np.abs(detections.boxes) <= MAX_SIDE).all(axis=1) & np.isfinite(detections.scores)
    known_image = find(index.image_ids, detections.image_ids) >= 0
    known_category = find(index.category_ids, detections.category_ids) >= 0
    ids = ", ".join(map(str, index.category_ids[:SHOWN_IDS].tolist()))
    more = ", ..." if len(index.category_ids) > SHOWN_IDS else ""
    for good, what, hint in (
        (known_image, f"is of an image that {index.split} does not have", ""),
        (known_category, "is of an unknown category", f" Category ids of {index.split}: {ids}{more}."),
        (finite, "has a box or score that is not finite, or beyond any image", ""),
    ):
        bad = np.flatnonzero(~good)
        if len(bad):
            raise DataError(
                f"{len(bad):,} of {len(detections):,} detections cannot be scored: the first, number {bad[0]}, {what} "
                f"({_described(detections, int(bad[0]))}).{hint}"
            )


def detection_notes(index: CocoIndex, detections: Detections) -> list[str]:
    """What is scored, as pycocotools does, but is odd: areas of the data, negative sides, boxes that leave their image.

    Corners that are read as (x, y, width, height) do. The detections have passed ``check_detections``.
    """
    position = find(index.image_ids, detections.image_ids)
    border = np.column_stack([index.widths[position], index.heights[position]])
    corner, sides = detections.boxes[:, :2], detections.boxes[:, 2:]
    negative = (sides < 0).any(axis=1)
    outside = ((corner < -OVERHANG) | (corner + sides > border + OVERHANG)).any(axis=1)
    notes = _area_notes(index)
    for odd, what in ((negative, "have a negative width or height"), (outside, "leave their image")):
        if odd.any():
            first = int(np.flatnonzero(odd)[0])
            width, height = border[first].tolist()
            notes.append(
                f"{int(odd.sum()):,} of {len(detections):,} detections {what}: the first, number {first}, in an image "
                f"of {width} x {height} ({_described(detections, first)}). COCO's boxes are (x, y, width, height) in "
                "pixels, not corners."
            )
    return notes


def _area_notes(index: CocoIndex) -> list[str]:
    size = (index.boxes[:, 2:] - index.boxes[:, :2]).prod(axis=1)
    larger = (index.areas > LARGER * size + 1) & (size > 0) & ~index.crowd
    if not larger.any():
        return []
    return [
        f"{int(larger.sum()):,} of {len(larger):,} boxes of {index.split} have an area above their own, by which "
        "COCO's metrics call an object small, medium or large. They are taken as given."
    ]


def _described(detections: Detections, i: int) -> str:
    return (
        f"image_id {detections.image_ids[i]}, category_id {detections.category_ids[i]}, "
        f"bbox {detections.boxes[i].tolist()}, score {detections.scores[i]}"
    )
