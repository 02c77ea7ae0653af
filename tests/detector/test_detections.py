"""Detections in and out of COCO's format, validated, and scored by pycocotools."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from detector.data.coco import CocoIndex, load_index
from detector.detections import METRICS, Detections, coco_metrics, read_detections, write_detections
from detector.errors import DataError


@pytest.fixture
def index(tmp_path: Path) -> CocoIndex:
    """Two images; categories 3 and 7; a small, a medium and a crowd box."""
    boxes = [(1, 10, 3, [10, 10, 20, 20], 0), (2, 10, 7, [40, 40, 50, 50], 0), (3, 12, 3, [0, 0, 90, 90], 1)]
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 100, "height": 100} for i in (10, 12)],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {
                "id": key,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": crowd,
            }
            for key, image, category, box, crowd in boxes
        ],
    }
    for annotation in content["annotations"]:
        if annotation["iscrowd"]:
            annotation["segmentation"] = {"counts": [0, 100 * 100], "size": [100, 100]}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(content))
    return load_index(tmp_path, "val")


def detections(*rows: tuple[int, int, list[float], float]) -> Detections:
    return Detections(
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, 4),
        np.array([row[3] for row in rows], dtype=np.float64),
    )


PERFECT = ((10, 3, [10.0, 10, 20, 20], 0.9), (10, 7, [40.0, 40, 50, 50], 0.8))


def test_coco_metrics_of_perfect_detections_is_100(index: CocoIndex) -> None:
    metrics = coco_metrics(index, detections(*PERFECT))
    assert tuple(metrics) == METRICS
    assert metrics["AP"] == pytest.approx(100)
    assert metrics["APS"] == pytest.approx(100)
    assert metrics["APM"] == pytest.approx(100)
    assert metrics["APL"] is None  # no large object


def test_coco_metrics_of_one_category_missed_is_half(index: CocoIndex) -> None:
    metrics = coco_metrics(index, detections(PERFECT[0]))
    assert metrics["AP"] == pytest.approx(50)
    assert metrics["APM"] == pytest.approx(0)


def test_coco_metrics_counts_a_false_positive_above_the_match(index: CocoIndex) -> None:
    wrong = (10, 3, [60.0, 5, 20, 20], 0.95)
    metrics = coco_metrics(index, detections(wrong, *PERFECT))
    # Category 3: precision 1/2 at every recall; category 7: 1.
    assert metrics["AP"] == pytest.approx(75, abs=1e-9)


def test_coco_metrics_ignores_detections_in_a_crowd(index: CocoIndex) -> None:
    inside = (12, 3, [5.0, 5, 30, 30], 0.99)
    assert coco_metrics(index, detections(inside, *PERFECT))["AP"] == pytest.approx(100)


def test_coco_metrics_of_no_detections_is_0(index: CocoIndex) -> None:
    metrics = coco_metrics(index, detections())
    assert (metrics["AP"], metrics["APS"], metrics["APL"]) == (0, 0, None)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((11, 3, [0.0, 0, 5, 5], 0.5), "is of an image that val does not have (image_id 11"),
        ((10, 4, [0.0, 0, 5, 5], 0.5), "is of an unknown category (image_id 10, category_id 4"),
        ((10, 3, [0.0, float("nan"), 5, 5], 0.5), "not finite"),
        ((10, 3, [0.0, 0, 5, 5], float("inf")), "not finite"),
    ],
)
def test_coco_metrics_refuses_what_pycocotools_would_take(
    index: CocoIndex, row: tuple[int, int, list[float], float], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        coco_metrics(index, detections(*PERFECT, row))
    assert message in str(caught.value)
    assert "1 of 3 detections cannot be scored: the first, number 2" in str(caught.value)


@pytest.mark.parametrize("name", ["d.json.gz", "d.json"])
def test_detections_survive_a_round_trip(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    before = detections(*PERFECT)
    write_detections(tmp_path / "d.json.gz", before)
    if name == "d.json":
        import gzip

        path.write_bytes(gzip.decompress((tmp_path / "d.json.gz").read_bytes()))
    after = read_detections(path)
    for column in ("image_ids", "category_ids", "boxes", "scores"):
        np.testing.assert_array_equal(getattr(after, column), getattr(before, column))


def test_read_detections_names_a_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    path.write_text('[{"image_id": 1, "category_id": "cat", "bbox": [0, 0, 1, 1], "score": 1}]')
    with pytest.raises(DataError, match=r"d\.json is not a COCO result list .*\$\[0\]\.category_id"):
        read_detections(path)


def test_concatenate_hides_how_images_were_sharded() -> None:
    rows = [(image, 1, [float(image), k, 1, 1], 0.5) for image in (1, 2, 3, 4, 5) for k in (0, 1)]
    whole = Detections.concatenate([detections(*rows)])
    shards = Detections.concatenate([detections(*[r for r in rows if r[0] % 2 == rank]) for rank in (0, 1)])
    np.testing.assert_array_equal(shards.boxes, whole.boxes)
    assert len(Detections.concatenate([])) == 0


def test_coco_metrics_fill_in_the_area_and_crowd_flag_that_a_file_leaves_out(index: CocoIndex) -> None:
    path = index.root / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    found = detections((10, 3, [10.0, 10.0, 20.0, 20.0], 0.9), (10, 7, [40.0, 40.0, 50.0, 50.0], 0.8))
    complete = coco_metrics(index, found)
    objects = [annotation for annotation in content["annotations"] if not annotation["iscrowd"]]
    del objects[0]["area"], objects[0]["iscrowd"]
    objects[1]["area"] = None
    path.write_text(json.dumps(content))
    assert coco_metrics(load_index(index.root, "val"), found) == complete
    assert complete["AP"] == pytest.approx(100.0)


def test_read_detections_names_a_gzip_file_that_is_damaged_inside(tmp_path: Path) -> None:
    path = tmp_path / "detections.json.gz"
    write_detections(path, detections((10, 3, [1.0, 2.0, 3.0, 4.0], 0.5)))
    content = bytearray(path.read_bytes())
    content[12:20] = b"\xff" * 8
    path.write_bytes(content)
    with pytest.raises(DataError, match="is not a COCO result list"):
        read_detections(path)
