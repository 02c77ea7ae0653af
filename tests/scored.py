"""Truth and detections to be scored, and pycocotools' numbers from the files themselves."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.data.coco.files import annotation_file
from detector.data.coco.index import CocoIndex, load_index
from detector.evaluation.detections import Detections

SIDE = 640


def truth(root: Path, images: list[int], categories: list[int], rows: list[tuple[Any, ...]]) -> CocoIndex:
    """A split of square images; rows: id, image id, category id, [x, y, width, height], area, crowd."""
    names = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": SIDE, "height": SIDE} for i in images],
        "categories": [{"id": i, "name": f"class {i}"} for i in categories],
        "annotations": [dict(zip(names, row, strict=True)) for row in rows],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_val.json").write_text(json.dumps(content))
    return load_index(root, "val")


def detections(*rows: tuple[int, int, list[float], float]) -> Detections:
    """rows: image id, category id, [x, y, width, height], score."""
    return Detections(
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, 4),
        np.array([row[3] for row in rows], dtype=np.float64),
    )


def stats_of_the_files(index: CocoIndex, found: Detections) -> NDArray[np.float64]:
    """[12] what pycocotools makes of the annotation file and of a result list of Python numbers."""
    columns = (found.image_ids, found.category_ids, found.boxes, found.scores)
    names = ("image_id", "category_id", "bbox", "score")
    rows = zip(*(column.tolist() for column in columns), strict=True)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(annotation_file(index.root, index.split)))
        coco.dataset.setdefault("info", {})
        evaluation = COCOeval(coco, coco.loadRes([dict(zip(names, row, strict=True)) for row in rows]), "bbox")
        evaluation.params.imgIds = index.image_ids.tolist()
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.asarray(evaluation.stats)
