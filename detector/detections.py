"""Detections as columns, COCO's result files, and the metrics that pycocotools gives them. Free of torch."""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from detector.data.coco import CocoIndex, annotation_file, is_labelled
from detector.errors import DataError
from detector.rundir import write_atomic

# In the order of pycocotools' stats; in percent, AR for average recall.
METRICS = ("AP", "AP50", "AP75", "APS", "APM", "APL", "AR1", "AR10", "AR100", "ARS", "ARM", "ARL")


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
        """All parts, sorted by image (stable), so that how they were sharded does not show."""
        parts = list(parts)
        if not parts:
            return Detections(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0))
        columns = [np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS]
        order = np.argsort(columns[0], kind="stable")
        return Detections(*(column[order] for column in columns))


_COLUMNS = ("image_ids", "category_ids", "boxes", "scores")


class _Result(msgspec.Struct, frozen=True, gc=False):
    """One entry of COCO's result list; further fields (segmentation, ...) are ignored."""

    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    score: float


def write_detections(path: Path, detections: Detections) -> None:
    """COCO's result list as gzip'd JSON, atomically."""
    columns = (getattr(detections, name).tolist() for name in _COLUMNS)
    results = [_Result(i, c, tuple(box), score) for i, c, box, score in zip(*columns, strict=True)]
    write_atomic(path, gzip.compress(msgspec.json.encode(results), compresslevel=3, mtime=0))


def read_detections(path: Path) -> Detections:
    """COCO's result list from .json or .json.gz. Raises DataError naming the file and what is wrong in it."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        results = msgspec.json.decode(content, type=list[_Result])
    except (OSError, EOFError, zlib.error, msgspec.DecodeError) as error:
        raise DataError(f"{path} is not a COCO result list (image_id, category_id, bbox, score): {error}.") from error
    return Detections(
        np.array([result.image_id for result in results], dtype=np.int64),
        np.array([result.category_id for result in results], dtype=np.int64),
        np.array([result.bbox for result in results], dtype=np.float64).reshape(-1, 4),
        np.array([result.score for result in results], dtype=np.float64),
    )


def check_detections(index: CocoIndex, detections: Detections) -> None:
    """Raises DataError for what pycocotools would take silently: NaN, unknown images or categories."""
    finite = np.isfinite(detections.boxes).all(axis=1) & np.isfinite(detections.scores)
    known_image = np.isin(detections.image_ids, index.image_ids)
    known_category = np.isin(detections.category_ids, index.category_ids)
    for good, what in (
        (known_image, f"is of an image that {index.split} does not have"),
        (known_category, "is of an unknown category"),
        (finite, "has a box or score that is not finite"),
    ):
        bad = np.flatnonzero(~good)
        if len(bad):
            first = int(bad[0])
            raise DataError(
                f"{len(bad):,} of {len(detections):,} detections cannot be scored: the first, number {first}, {what} "
                f"(image_id {detections.image_ids[first]}, category_id {detections.category_ids[first]}, "
                f"bbox {detections.boxes[first].tolist()}, score {detections.scores[first]})."
            )


def coco_metrics(index: CocoIndex, detections: Detections) -> dict[str, float | None]:
    """pycocotools' twelve numbers in percent, unrounded, over the images of ``index``.

    None where the images hold no object of that size. No detections at all: 0. Raises as ``check_detections``, and
    DataError for a split without labels.
    """
    if not is_labelled(index.root, index.split):
        raise DataError(
            f"{index.split} has no labels here to score against: they are the evaluation server's. "
            "Use 'harness export' for its zip, and 'harness record --from-server' for its answer."
        )
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    check_detections(index, detections)
    with contextlib.redirect_stdout(io.StringIO()):  # it narrates
        truth = COCO(str(annotation_file(index.root, index.split)))
        _fill_in(truth.dataset)
        found = _as_coco(truth, detections)
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.imgIds = index.image_ids.tolist()
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = (float(value) for value in evaluation.stats)
    return {name: None if value == -1 else 100 * value for name, value in zip(METRICS, values, strict=True)}


def _fill_in(dataset: dict[str, Any]) -> None:
    """What pycocotools cannot do without, where the file leaves it out: as ``read_split`` understands its absence."""
    dataset.setdefault("info", {})
    for annotation in dataset["annotations"]:
        annotation.setdefault("iscrowd", 0)
        if annotation.get("area") is None:
            annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]


def _as_coco(truth: Any, detections: Detections) -> Any:
    if len(detections):
        columns = (detections.image_ids[:, None], detections.boxes, detections.scores[:, None])
        return truth.loadRes(np.concatenate([*columns, detections.category_ids[:, None]], axis=1))
    empty = type(truth)()  # loadRes fails on an empty list
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty
