"""A small COCO root for the cases: six images of 48 x 40 pixels, two categories, boxes of several sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

Content = dict[str, Any]
TRAIN, VAL = "train2017", "val2017"
WIDTH, HEIGHT, IMAGES = 48, 40, 6
BOXES = ([4, 4, 20, 20], [10, 6, 30, 24], [0, 0, 48, 40])


def content() -> Content:
    """An instances file without a fault. Annotation ids are 1 to 18, three for each image."""
    rows = [
        {
            **{"id": 3 * i + k + 1, "image_id": i + 1, "category_id": 1 + k % 2, "bbox": [float(x) for x in box]},
            **{"area": float(box[2] * box[3]) / 2, "iscrowd": 0},
        }
        for i in range(IMAGES)
        for k, box in enumerate(BOXES)
    ]
    images = [{"id": i + 1, "file_name": f"{i + 1}.jpg", "width": WIDTH, "height": HEIGHT} for i in range(IMAGES)]
    return {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]}


@cache
def picture(kind: str = "JPEG", mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT)) -> bytes:
    """An image file with a slope of grey."""
    stream = BytesIO()
    Image.linear_gradient("L").resize(size).convert(mode).save(stream, kind)
    return stream.getvalue()


def write_root(
    folder: Path,
    train: Content | bytes | None = None,
    val: Content | bytes | None = None,
    *,
    images: dict[str, bytes] | None = None,
) -> Path:
    """A root with both splits. train, val: the annotations, as data or bytes; None: without a fault.

    images: other bytes for files of the training split by name.
    """
    root = folder / "root"
    for split, given in ((TRAIN, train), (VAL, val)):
        path = root / "annotations" / f"instances_{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        given = content() if given is None else given
        path.write_bytes(given if isinstance(given, bytes) else json.dumps(given).encode())
        (root / split).mkdir(exist_ok=True)
        for i in range(IMAGES):
            name = f"{i + 1}.jpg"
            (root / split / name).write_bytes((images or {}).get(name, picture()) if split == TRAIN else picture())
    return root


def annotations(root: Path, split: str = TRAIN) -> Path:
    """A split's file."""
    return root / "annotations" / f"instances_{split}.json"


def first(part: str, **fields: Any) -> Callable[[Content], None]:
    """An edit: other fields for the first image, annotation or category."""
    return lambda data: data[part][0].update(fields)


def every(part: str, **fields: Any) -> Callable[[Content], None]:
    """An edit: other fields for all of them."""

    def edit(data: Content) -> None:
        for row in data[part]:
            row.update(fields)

    return edit


def without(part: str, *names: str) -> Callable[[Content], None]:
    """An edit: all of them without some fields."""

    def edit(data: Content) -> None:
        for row in data[part]:
            for name in names:
                del row[name]

    return edit


def more(part: str, **fields: Any) -> Callable[[Content], None]:
    """An edit: the first again, with some other fields, at the end."""
    return lambda data: data[part].append(data[part][0] | fields)
