"""A COCO root unlike COCO: generated images with other shapes, categories and splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from PIL import Image

from detector.data.coco.files import annotation_file
from detector.data.shapes.generate import GENERATOR_VERSION, SPEC_FILE, SPLITS, generate_shapes
from detector.runs.job import Shapes


def own_data(
    root: Path,
    *,
    category_ids: tuple[int, ...] = (3, 17, 900),
    splits: tuple[str, str] = SPLITS,
    one_object: bool = False,
    wider: int = 0,
    num_train: int = 24,
    num_test: int = 6,
    size: int = 64,
) -> Path:
    """Draw a set and change it. one_object: keeps one box per image. wider: grey pixels that each image gets at right.

    category_ids: the ids of its classes. splits: the names of the training and the test split.
    """
    spec = Shapes(
        version=GENERATOR_VERSION,
        seed=0,
        size=size,
        num_train=num_train,
        num_test=num_test,
        num_classes=len(category_ids),
    )
    generate_shapes(root, spec)
    (root / SPEC_FILE).unlink()
    for drawn, name in zip(SPLITS, splits, strict=True):
        path = annotation_file(root, drawn)
        content = msgspec.json.decode(path.read_bytes())
        path.unlink()
        for category in content["categories"]:
            category["id"] = category_ids[category["id"] - 1]
        for annotation in content["annotations"]:
            annotation["category_id"] = category_ids[annotation["category_id"] - 1]
        if one_object:
            content["annotations"] = _first_of_each(content["annotations"])
        (root / drawn).rename(root / name)
        for image in content["images"]:
            _widen(root / name / image["file_name"], wider)
            image["width"] += wider
        (root / "annotations" / f"instances_{name}.json").write_bytes(msgspec.json.encode(content))
    return root


def _first_of_each(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({row["image_id"]: row for row in reversed(annotations) if not row["iscrowd"]}.values())


def _widen(path: Path, wider: int) -> None:
    if wider:
        with Image.open(path) as image:
            canvas = Image.new("RGB", (image.width + wider, image.height), (128, 128, 128))
            canvas.paste(image, (0, 0))
        canvas.save(path)
