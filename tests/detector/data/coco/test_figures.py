"""Figures of a split against ones counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detector.data.coco.figures import split_figures
from detector.data.coco.index import load_index


def write(root: Path, annotations: list[dict]) -> None:
    (root / "annotations").mkdir(parents=True)
    images = [
        {"id": 1, "file_name": "a.JPG", "width": 100, "height": 50},
        {"id": 2, "file_name": "b.png", "width": 60, "height": 60},
        {"id": 5, "file_name": "c.png", "width": 40, "height": 80},
    ]
    rows = [{"id": i + 1, "iscrowd": 0, "area": 1, **row} for i, row in enumerate(annotations)]
    categories = [{"id": 900, "name": "b"}, {"id": 3, "name": "a"}]
    content = {"images": images, "annotations": rows, "categories": categories}
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))


def test_figures_count_boxes_without_crowds_over_images_to_train_on(tmp_path: Path) -> None:
    write(
        tmp_path,
        [
            {"image_id": 1, "category_id": 3, "bbox": [0, 0, 10, 10]},
            {"image_id": 1, "category_id": 900, "bbox": [0, 0, 20, 45]},
            {"image_id": 1, "category_id": 3, "bbox": [0, 0, 100, 50], "iscrowd": 1},
            {"image_id": 2, "category_id": 3, "bbox": [5, 5, 30, 30]},
        ],
    )
    figures = split_figures(load_index(tmp_path, "train"))
    assert (figures.images, figures.num_trainable, figures.num_boxes) == (3, 2, 3)
    assert (figures.category_ids, figures.classes) == ((3, 900), ("a", "b"))
    assert figures.boxes_per_image == (1, 1.5, 2)
    assert (figures.widths, figures.short_sides) == ((40, 60, 100), (40, 50, 60))
    assert figures.aspects == (1, 2, 2)
    assert figures.box_sides[1] == pytest.approx(30)  # sides 10, 30, 30
    assert figures.relative_sides[1] == pytest.approx(0.5)  # 10 / 50, 30 / 50, 30 / 60
    assert figures.suffixes == (".jpg", ".png")


def test_figures_of_a_split_without_boxes_are_zero(tmp_path: Path) -> None:
    write(tmp_path, [])
    figures = split_figures(load_index(tmp_path, "train"))
    assert (figures.num_trainable, figures.num_boxes) == (0, 0)
    assert figures.box_sides == figures.boxes_per_image == (0, 0, 0)
