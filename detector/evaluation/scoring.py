"""COCO's twelve numbers: by pycocotools, or by an optional library, fifty times faster and equal to the last bit.

A record has pycocotools' numbers. Free of torch. Legend: N images, M detections, B boxes.
"""

from __future__ import annotations

import contextlib
import io
from importlib import import_module
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from detector.data.coco.annotations import find
from detector.data.coco.files import is_labelled
from detector.data.coco.index import CocoIndex
from detector.errors import DataError, UsageError, did_you_mean
from detector.evaluation.detections import Detections, check_detections
from detector.evaluation.matches import Matches, matches_of
from detector.runs.record import COCO_METRICS

METRICS = COCO_METRICS

Backend = Literal["pycocotools", "ultrafast", "hotcoco"]
FAST: tuple[Backend, ...] = ("ultrafast", "hotcoco")  # preferred first
# Where each has its COCO and its COCOeval, which have one interface.
_MODULES: dict[Backend, tuple[str, str]] = {
    "pycocotools": ("pycocotools.coco", "pycocotools.cocoeval"),
    "ultrafast": ("ultrafast_pycocotools", "ultrafast_pycocotools"),
    "hotcoco": ("hotcoco", "hotcoco"),
}
_INSTALL = "Run: pip install 'drloss-harness[fast]'."


def coco_metrics(index: CocoIndex, detections: Detections, backend: Backend = "pycocotools") -> dict[str, float | None]:
    """The twelve numbers in percent, unrounded, over the images of ``index``; None where they hold no such object.

    No detections at all: 0. Raises as ``coco_stats``.
    """
    return in_percent(coco_stats(index, detections, backend))


def in_percent(stats: NDArray[np.float64]) -> dict[str, float | None]:
    """``coco_stats`` by name."""
    return {name: None if value == -1 else 100 * value for name, value in zip(METRICS, stats.tolist(), strict=True)}


def coco_stats(index: CocoIndex, detections: Detections, backend: Backend = "pycocotools") -> NDArray[np.float64]:
    """[12] as pycocotools has them: 0..1, and -1 where the images hold no object of that size.

    Raises as ``check_detections``, DataError for a split without labels, UsageError for a backend that is missing.
    """
    return np.asarray(_evaluation(index, detections, backend).stats, dtype=np.float64)


def coco_metrics_and_matches(index: CocoIndex, detections: Detections) -> tuple[dict[str, float | None], Matches]:
    """``coco_metrics`` by pycocotools, and which detections were right in each image. Raises as ``coco_stats``."""
    evaluation = _evaluation(index, detections, "pycocotools")
    stats = np.asarray(evaluation.stats, dtype=np.float64)
    return in_percent(stats), matches_of(evaluation, index, detections)


def _evaluation(index: CocoIndex, detections: Detections, backend: Backend) -> Any:
    """The library's COCOeval with its ``stats``. Raises as ``coco_stats``."""
    if not is_labelled(index.root, index.split):
        raise DataError(
            f"{index.split} has no labels here to score against; only the evaluation server does. "
            "Use 'harness export' for its zip, and 'harness record --from-server' for its answer."
        )
    check_detections(index, detections)
    coco, evaluator = _load(backend)
    content = _truth(index)
    with contextlib.redirect_stdout(io.StringIO()):  # they print their progress
        truth = _as_coco(coco, content)
        if len(detections):
            found = truth.loadRes(_results(index, detections))
        else:  # of which pycocotools makes an IndexError
            found = _as_coco(coco, {**content, "annotations": []})
        evaluation = evaluator(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def differences(found: NDArray[np.float64], other: NDArray[np.float64]) -> list[str]:
    """A line for each of the twelve numbers ([12] each, as ``coco_stats``) that is not the same to the last bit."""
    pairs = zip(METRICS, found.tolist(), other.tolist(), strict=True)
    return [f"{name}: {value!r}, {expected!r}" for name, value, expected in pairs if value != expected]


def fast_backend() -> Backend | None:
    """The preferred one of the fast libraries that are installed."""
    for backend in FAST:
        with contextlib.suppress(UsageError):
            _load(backend)
            return backend
    return None


def named_backend(name: str) -> Backend:
    """What a user's ``--backend`` means. Raises UsageError for an unknown name, and for what is not installed."""
    if name == "fast":
        backend = fast_backend()
        if backend is None:
            raise UsageError(f"No fast backend ({' or '.join(FAST)}) is installed. {_INSTALL}")
        return backend
    for backend in _MODULES:
        if backend == name:
            _load(backend)
            return backend
    near = did_you_mean(name, [*_MODULES, "fast"])
    raise UsageError(f"Unknown backend '{name}'. Known: {', '.join(_MODULES)}, fast.{near}")


def _load(backend: Backend) -> tuple[Any, Any]:
    """The library's COCO and COCOeval."""
    first, second = _MODULES[backend]
    try:
        return import_module(first).COCO, import_module(second).COCOeval
    except ImportError as error:
        raise UsageError(f"Backend '{backend}' cannot be imported ({error}). {_INSTALL}") from error


def _as_coco(coco: Any, content: dict[str, Any]) -> Any:
    handle = coco()
    handle.dataset = content
    handle.createIndex()
    return handle


def _truth(index: CocoIndex) -> dict[str, Any]:
    """The index as an instances file; ids are positions.

    So no image's id is rounded in ``_results``, and no annotation has the id 0, which pycocotools reads as no match.
    """
    boxes = np.concatenate([index.boxes[:, :2], index.sides], axis=1)
    columns = (index.positions(), index.labels, boxes, index.areas, index.crowd.astype(np.int64))
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return {
        "info": {},
        "images": [{"id": i} for i in range(index.num_images)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(index.category_names)],
        "annotations": [
            {"id": i, "image_id": image, "category_id": label, "bbox": box, "area": area, "iscrowd": crowd}
            for i, (image, label, box, area, crowd) in enumerate(rows, 1)
        ],
    }


def _results(index: CocoIndex, detections: Detections) -> NDArray[np.float64]:
    """[M, 7] image, x, y, width, height, score, category: what ``loadRes`` takes; ids are positions."""
    image = find(index.image_ids, detections.image_ids)
    label = find(index.category_ids, detections.category_ids)
    return np.column_stack([image, detections.boxes, detections.scores, label])
