"""Which detections of a scored split are right, per image: enough to have its AP of any weights of the images.

COCO's evaluation looks at one image at a time; what it finds there is kept, so that a bootstrap over images scores
nothing anew. Free of torch. Legend: N images, M detections, C categories, G pairs of image and category with boxes.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from detector.data.coco.index import CocoIndex
from detector.errors import DataError
from detector.evaluation.detections import Detections
from detector.storage.files import write_atomic
from detector.storage.reading import INFLATED, open_regular

AREA_RANGES = ("all", "small", "medium", "large")
IOUS = 10  # 0.50, 0.55, ..., 0.95
_NEVER = 2**IOUS - 1  # a bit for each IoU
# What Python and numpy answer to hostile bytes; MemoryError: a header may name any shape.
_DAMAGED = (DataError, OSError, ValueError, LookupError, EOFError, TypeError, MemoryError, NotImplementedError)
_DAMAGED_ZIP = (BadZipFile, zlib.error, OverflowError, SyntaxError)


@dataclass(frozen=True, eq=False)
class Matches:
    """Detections sorted by category, then as COCO ranks them; bit t of a mask stands for the IoU 0.5 + 0.05 t.

    A detection counts as right where it is matched and not ignored, as wrong where it is neither.
    """

    image_ids: NDArray[np.int64]  # [N] ascending
    starts: NDArray[np.int64]  # [C + 1] the detections of category c are starts[c]:starts[c + 1]
    images: NDArray[np.int32]  # [M] position of each detection's image
    scores: NDArray[np.floating[Any]]  # [M]
    matched: NDArray[np.uint16]  # [4, M] by area range: found an object, which may be one to be ignored
    ignored: NDArray[np.uint16]  # [4, M] neither right nor wrong: of a crowd, or of another size
    object_images: NDArray[np.int32]  # [G]
    object_categories: NDArray[np.int32]  # [G]
    objects: NDArray[np.int32]  # [G, 4] how many boxes of each area range count


def matches_of(evaluation: Any, index: CocoIndex, detections: Detections) -> Matches:
    """What pycocotools found. evaluation: its COCOeval after ``evaluate``, of positions as ids (``scoring``)."""
    count, num_classes = len(detections), len(index.category_ids)
    matched = np.zeros((len(AREA_RANGES), count), np.uint16)
    ignored = np.full((len(AREA_RANGES), count), _NEVER, np.uint16)
    objects = np.zeros((num_classes, index.num_images, len(AREA_RANGES)), np.int32)
    kept: list[NDArray[np.int64]] = []
    starts, images = np.zeros(num_classes + 1, np.int64), np.zeros(count, np.int32)
    for category, area, found in _cells(evaluation.evalImgs, num_classes, index.num_images):
        rows = []
        for image, cell in found:
            # loadRes numbers detections from 1, in their order.
            row = np.asarray(cell["dtIds"], np.int64) - 1
            matched[area, row] = _bits(cell["dtMatches"] != 0)
            ignored[area, row] = _bits(cell["dtIgnore"] != 0)
            images[row] = image
            objects[category, image, area] = np.count_nonzero(np.asarray(cell["gtIgnore"]) == 0)
            rows.append(row)
        if area == 0:
            joined = np.concatenate(rows) if rows else np.zeros(0, np.int64)
            kept.append(joined[np.argsort(-detections.scores[joined], kind="mergesort")])
            starts[category + 1] = starts[category] + len(joined)
    order = np.concatenate([np.zeros(0, np.int64), *kept])
    with_boxes = np.argwhere(objects.any(axis=2))
    return Matches(
        image_ids=index.image_ids,
        starts=starts,
        images=images[order],
        scores=_shortest(detections.scores[order]),
        matched=matched[:, order],
        ignored=ignored[:, order],
        object_images=with_boxes[:, 1].astype(np.int32),
        object_categories=with_boxes[:, 0].astype(np.int32),
        objects=objects[with_boxes[:, 0], with_boxes[:, 1]],
    )


def _cells(
    cells: list[Any], num_classes: int, num_images: int
) -> Iterator[tuple[int, int, list[tuple[int, dict[str, Any]]]]]:
    """Category, area range, and the images with anything of them: pycocotools' list is in this order."""
    for category in range(num_classes):
        for area in range(len(AREA_RANGES)):
            start = (category * len(AREA_RANGES) + area) * num_images
            part = cells[start : start + num_images]
            yield category, area, [(image, cell) for image, cell in enumerate(part) if cell is not None]


def _bits(flags: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """[IOUS, m] -> [m]"""
    weights: NDArray[np.uint16] = (1 << np.arange(IOUS)).astype(np.uint16)
    packed: NDArray[np.uint16] = weights @ np.asarray(flags).astype(np.uint16)
    return packed


def _shortest(scores: NDArray[np.float64]) -> NDArray[np.floating[Any]]:
    """Networks give float32, which float64 merely widens."""
    short = scores.astype(np.float32)
    return short if (short == scores).all() else scores


def write_matches(path: Path, matches: Matches) -> None:
    """As compressed .npz, atomically."""
    content = io.BytesIO()
    np.savez_compressed(content, **{field.name: getattr(matches, field.name) for field in fields(Matches)})
    write_atomic(path, content.getvalue())


def read_matches(path: Path) -> Matches:
    """What ``write_matches`` wrote. Raises DataError where it is damaged."""
    try:
        with open_regular(path, most=INFLATED, raises=DataError) as opened, ZipFile(opened) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
            if unpacked > INFLATED:
                raise DataError(f"it holds {unpacked:,} bytes when it is unpacked; at most {INFLATED:,} are read")
            opened.seek(0)
            with np.load(opened, allow_pickle=False) as file:
                return Matches(**{field.name: file[field.name] for field in fields(Matches)})
    except (*_DAMAGED, *_DAMAGED_ZIP) as error:
        why = str(error).removeprefix(f"{path} ").rstrip(".")
        raise DataError(
            f"{path} does not hold the matches of an evaluation ({why}). Remove it: it is no part of the result."
        ) from error
